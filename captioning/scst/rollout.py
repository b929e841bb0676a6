"""Decode the captions of a batch of images together, in packed rows: N drawn captions, and the greedy one if needed.

Each image's prefix is run and stored once. In every step, each caption of an image appends one token to the same row
(scst/packing.py). The tokens are those of `generate` on rows that repeat the prefix, the drawn ones by the same random
numbers (tests/scst/test_packing.py). On a GPU, scst/graphs.py runs these steps.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from captioning.paligemma.model import head_logits
from captioning.scst.packing import Prefix, run_packed
from captioning.scst.sampling import Sampling

Step = Callable[[Tensor], Tensor]  # appends a token per caption `[images, captions]`, returns their hidden states
MakeStep = Callable[[Any, Prefix, int, int], Step]  # of model, prefix, captions per image, tokens per caption


def growing_rows(model: Any, prefix: Prefix, captions: int, limit: int) -> Step:
    """Return a step whose cache grows with each token."""
    cache, device = prefix.cache(), prefix.last.device
    # each step appends one token per caption, so every `captions`-th token belongs to the same caption
    same_caption = torch.eye(captions, dtype=torch.bool, device=device).repeat(1, limit)
    steps = 0

    def step(tokens: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        mask = torch.cat([same_caption.new_ones(captions, prefix.length), same_caption[:, : steps * captions]], dim=1)
        positions = torch.full((1, captions), prefix.length + steps, device=device)
        return run_packed(model, tokens, mask[None], positions, cache)

    return step


def rollout(
    model: Any,
    prefix: Prefix,
    sampling: Sampling,
    uniforms: Float[Tensor, "images samples limit"],
    greedy: bool,
    eos: int,
    pad: int,
    make_step: MakeStep = growing_rows,
) -> Int[Tensor, "images captions tokens"]:
    """Return token ids, padded after `eos`: with `greedy` first the greedy caption, then the samples. `model` is a
    PaliGemma in evaluation mode; each of `uniforms`, from 0 to 1, draws one of at most `limit` tokens."""
    captions, limit, tokens = uniforms.shape[1] + greedy, uniforms.shape[2], list[Tensor]()
    with torch.inference_mode():
        prefix = prefix.detached()
        step = make_step(model, prefix, captions, limit)
        hidden = prefix.last[:, None].repeat(1, captions, 1)  # a copy: for a view, a CPU copies the head per image
        ended = torch.zeros(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
        while True:
            logits = head_logits(model, hidden)
            tokens.append(_choose(logits, sampling, greedy, uniforms[:, :, len(tokens)]).masked_fill(ended, pad))
            ended = ended | (tokens[-1] == eos)
            if len(tokens) == limit or bool(ended.all()):
                break
            hidden = step(tokens[-1])
    return torch.stack(tokens, dim=2)  # outside, as a graph cannot hold tensors of the inference mode


def _choose(
    logits: Float[Tensor, "images captions vocabulary"],
    sampling: Sampling,
    greedy: bool,
    uniforms: Float[Tensor, "images samples"],
) -> Int[Tensor, "images captions"]:
    """Return the next token of each caption; the greedy caption comes first."""
    likeliest = [sampling.best(logits[:, 0])[:, None]] if greedy else []
    if not uniforms.shape[1]:
        return likeliest[0]
    drawn = sampling.draw(logits[:, int(greedy) :].flatten(0, 1), uniforms.flatten()).unflatten(0, uniforms.shape)
    return torch.cat([*likeliest, drawn], dim=1)
