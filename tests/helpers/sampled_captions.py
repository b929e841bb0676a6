"""Captions as if the model had sampled them, and encoded images."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from captioning.scst.features import encode_images

PROMPT = "caption en"


def tokenise_captions(processor: Any, texts: Sequence[str], ended: Sequence[bool]) -> torch.Tensor:
    """Return caption tokens as decoding does: right-padded, with `<eos>` if the caption has ended."""
    tokenizer = processor.tokenizer
    rows = [
        tokenizer.encode(text, add_special_tokens=False) + [tokenizer.eos_token_id] * end
        for text, end in zip(texts, ended, strict=True)
    ]
    longest = max(map(len, rows))
    return torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])


def encode_in_memory(model: Any, processor: Any, images: Sequence[bytes]) -> torch.Tensor:
    """Return features `[images, tokens, hidden]`, in memory."""
    return encode_images(model, processor, images, 8, Path("not-written"))


def compute_gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the gradients of `loss` by parameter name."""
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.requires_grad}
