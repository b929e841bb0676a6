"""Decoding steps of SCST on a GPU, recorded once as a CUDA graph and replayed.

A step of a few tokens starts a thousand small kernels, and a GPU waits for their launches: at 3B on an H100, 40 ms for
work that takes a few. A graph launches them together. It has fixed shapes and addresses, so its cache has room for the
longest captions (transformers' `StaticLayer`), and a mask hides what is not yet written.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, StaticLayer

from captioning.scst.packing import Prefix, run_packed
from captioning.scst.rollout import Step


class FixedRows:
    """Steps of fixed shape for one model, number of images and length, recorded as a graph if the model is on a GPU."""

    def __init__(self, model: Any, prefix: Prefix, captions: int, limit: int) -> None:
        self.model, self.prefix_length, device = model, prefix.length, prefix.last.device
        length = prefix.length + captions * limit
        self.layers = [StaticLayer(length) for _ in prefix.layers]
        self.cache: Any = Cache(layers=self.layers)
        self.tokens = torch.zeros(len(prefix.last), captions, dtype=torch.long, device=device)
        self.positions = torch.zeros(1, captions, dtype=torch.long, device=device)
        same_caption = torch.eye(captions, dtype=torch.bool, device=device).repeat(1, limit)
        self.visible = torch.cat([same_caption.new_ones(captions, prefix.length), same_caption], dim=1)[None]
        self.mask, self.columns = torch.zeros_like(self.visible), torch.arange(length, device=device)
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
        end = self.prefix_length + self.steps * tokens.shape[1]
        torch.logical_and(self.visible, self.columns < end, out=self.mask)
        if self.graph is None:
            return self._run()
        self.graph.replay()
        return self.hidden

    def _run(self) -> Tensor:
        return run_packed(self.model, self.tokens, self.mask, self.positions, self.cache)

    def _record(self, prefix: Prefix) -> torch.cuda.CUDAGraph:
        """Run a step on a stream of its own, as CUDA's libraries need before a recording, then record it."""
        self.mask.copy_(self.visible)
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
        self.rows: FixedRows | None = None

    def __call__(self, model: Any, prefix: Prefix, captions: int, limit: int) -> Step:
        addresses = tuple(parameter.data_ptr() for parameter in model.parameters())  # a graph reads from these
        key = addresses, len(prefix.last), prefix.length, captions, limit
        if self.rows is None or key != self.key:
            self.rows = None  # frees the memory of the former
            self.key, self.rows = key, FixedRows(model, prefix, captions, limit)
        self.rows.restart(prefix)
        return self.rows
