"""Decode the captions of a batch of images together, in packed rows: N drawn captions, and the greedy one if needed.

`prefill` has run each image's prefix once. In every step, each caption of an image appends one token to the same row
(scst/packing.py). The tokens are those of `generate` on rows that repeat the prefix, the drawn ones by the same random
numbers (tests/scst/test_packing.py).

On a GPU, a step is recorded once as a CUDA graph and replayed. A step of a few tokens starts a thousand small kernels,
and a GPU waits for their launches: at 3B on an H100, 40 ms for work of less than 10. A graph launches them together. It
has fixed shapes and addresses, so its cache has room for the longest captions (transformers' `StaticLayer`), and a mask
hides what is not yet written.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, StaticLayer

from captioning.paligemma.model import head_logits
from captioning.scst.packing import Prefix, run_packed, step_masks
from captioning.scst.sampling import Sampling

Step = Callable[[Tensor], Tensor]  # appends a token per caption `[images, captions]`, returns their hidden states
MakeStep = Callable[[Any, Prefix, int, int], Step]  # of model, prefix, captions per image, tokens per caption


def growing_cache(model: Any, prefix: Prefix, captions: int, limit: int) -> Step:
    """Return a step whose cache grows with each token."""
    cache, device = prefix.cache(), prefix.last.device
    masks = step_masks(prefix.length, captions, limit, device)
    steps = 0

    def step(tokens: Tensor) -> Tensor:
        nonlocal steps
        steps += 1
        end = steps * captions
        mask = masks[:, end - captions : end, : prefix.length + end]
        positions = torch.full((1, captions), prefix.length + steps, device=device)
        return run_packed(model, tokens, mask, positions, cache)

    return step


def rollout(
    model: Any,
    prefix: Prefix,
    sampling: Sampling,
    uniforms: Float[Tensor, "images samples limit"],
    greedy: bool,
    eos_and_pad: tuple[int, int],
    make_step: MakeStep = growing_cache,
) -> Int[Tensor, "images captions tokens"]:
    """Return token ids, padded after the end: with `greedy` first the greedy caption, then the samples. `model` is a
    PaliGemma in evaluation mode; each of `uniforms`, from 0 to 1, draws one of at most `limit` tokens. `eos_and_pad`:
    ids of `<eos>` and padding."""
    captions, limit, tokens, (eos, pad) = uniforms.shape[1] + greedy, uniforms.shape[2], list[Tensor](), eos_and_pad
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


class FixedCache:
    """Steps of fixed shape for one model, number of images and length, recorded as a graph if the model is on a GPU."""

    def __init__(self, model: Any, prefix: Prefix, captions: int, limit: int) -> None:
        self.model, self.prefix_length, device = model, prefix.length, prefix.last.device
        self.masks = step_masks(prefix.length, captions, limit, device)
        self.layers = [StaticLayer(self.masks.shape[2]) for _ in prefix.layers]
        self.cache: Any = Cache(layers=self.layers)
        self.tokens = torch.zeros(len(prefix.last), captions, dtype=torch.long, device=device)
        self.positions = torch.zeros(1, captions, dtype=torch.long, device=device)
        self.mask = self.masks[:, -captions:].clone()
        self.graph = self._record(prefix) if device.type == "cuda" else None

    def restart(self, prefix: Prefix) -> None:
        """Begin new captions after `prefix`, which has the same shape as the first."""
        self.steps = 0
        for layer, (keys, values) in zip(self.layers, prefix.layers, strict=True):
            layer.cumulative_length.zero_()
            layer.update(keys, values)

    def __call__(self, tokens: Tensor) -> Tensor:
        """Append a token per caption `[images, captions]`; return hidden states, valid until the next step."""
        self.steps += 1
        self.tokens.copy_(tokens)
        self.positions.fill_(self.prefix_length + self.steps)
        end = self.steps * tokens.shape[1]
        self.mask.copy_(self.masks[:, end - tokens.shape[1] : end])
        if self.graph is None:
            return self._run()
        self.graph.replay()
        return self.hidden

    def _run(self) -> Tensor:
        return run_packed(self.model, self.tokens, self.mask, self.positions, self.cache)

    def _record(self, prefix: Prefix) -> torch.cuda.CUDAGraph:
        """Run a step on a stream of its own, as CUDA's libraries need before a recording, then record it."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                self.restart(prefix)
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.hidden = self._run()
        return graph


class RecordedSteps:
    """Makes steps for `rollout`, and keeps the last recording for the next captions of the same model and shape."""

    def __init__(self) -> None:
        self.key: Any = None
        self.decoder: FixedCache | None = None

    def __call__(self, model: Any, prefix: Prefix, captions: int, limit: int) -> Step:
        addresses = tuple(parameter.data_ptr() for parameter in model.parameters())  # a graph reads from these
        key = addresses, len(prefix.last), prefix.length, captions, limit
        if self.decoder is None or key != self.key:
            self.decoder = None  # frees the memory of the former
            self.key, self.decoder = key, FixedCache(model, prefix, captions, limit)
        self.decoder.restart(prefix)
        return self.decoder
