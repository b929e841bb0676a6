"""Captions of a batch of images, decoded together in packed rows: one greedy caption if wanted, and N drawn ones.

Each image's prefix is run once and stored once; at every step all its captions put one token each into the same row,
where they see the prefix and their own tokens only (scst/packing.py). The tokens are those of `generate` on
rows that repeat the prefix, the drawn ones by the same random numbers (tests/scst/test_packing.py).
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from captioning.paligemma.model import head_logits
from captioning.scst.packing import Prefix, run_packed
from captioning.scst.sampling import Sampling


def rollout(
    model: Any, prefix: Prefix, sampling: Sampling, samples: int, greedy: bool, maximum_tokens: int, eos: int, pad: int,
    points: Float[Tensor, "images samples tokens"] | None = None,
) -> Int[Tensor, "images captions tokens"]:  # fmt: skip
    """Token ids, padded after `eos`; with `greedy`, the greedy caption stands first and `samples` drawn ones follow.

    `model` is a PaliGemma in evaluation mode. `points`: the uniform numbers that draw each token; None: torch's global
    generator gives them. No caption is longer than `maximum_tokens`, `eos` counted.
    """
    with torch.inference_mode():
        tokens = _decode(model, prefix.detached(), sampling, samples + greedy, greedy, maximum_tokens, eos, pad, points)
    return tokens.clone()  # an ordinary tensor, which a graph may keep


def _decode(
    model: Any, prefix: Prefix, sampling: Sampling, captions: int, greedy: bool, maximum_tokens: int, eos: int,
    pad: int, points: Tensor | None,
) -> Int[Tensor, "images captions tokens"]:  # fmt: skip
    cache = prefix.cache()
    hidden = prefix.last[:, None].repeat(1, captions, 1)  # rows of their own: a CPU copies the head for a view's
    ended = torch.zeros(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    tokens: list[Tensor] = []
    while True:
        drawing = None if points is None else points[:, :, len(tokens)]
        chosen = _choose(head_logits(model, hidden), sampling, greedy, drawing).masked_fill(ended, pad)
        tokens.append(chosen)
        ended = ended | (chosen == eos)
        if len(tokens) == maximum_tokens or bool(ended.all()):
            return torch.stack(tokens, dim=2)
        position = torch.full((1, captions), prefix.length + len(tokens), device=hidden.device)
        mask = _step_mask(prefix.length, captions, len(tokens)).to(hidden.device)
        hidden = run_packed(model, chosen, mask, position, cache)


def _choose(logits: Tensor, sampling: Sampling, greedy: bool, points: Tensor | None) -> Int[Tensor, "images captions"]:
    """The next token of each caption; `logits` are `[images, captions, vocabulary]`, the greedy caption's first."""
    likeliest = sampling.best(logits[:, 0])[:, None] if greedy else None
    rest = logits[:, int(greedy) :]
    if not rest.shape[1]:
        assert likeliest is not None
        return likeliest
    drawn = sampling.draw(rest.flatten(0, 1), points).unflatten(0, rest.shape[:2])
    return drawn if likeliest is None else torch.cat([likeliest, drawn], dim=1)


def _step_mask(prefix: int, captions: int, steps: int) -> Bool[Tensor, "1 captions keys"]:
    """Rows grow by one token of every caption a step, so a caption's own tokens are every `captions`-th."""
    own = torch.eye(captions, dtype=torch.bool).repeat(1, steps)
    return torch.cat([own.new_ones(captions, prefix), own], dim=1)[None]
