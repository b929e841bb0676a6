"""Captions as if the model had drawn them: their suffix tokens, and the batch they are scored on."""

from collections.abc import Sequence
from typing import Any

import torch

from captioning.paligemma import image_features, prompt_inputs
from captioning.policy_gradient import with_suffix

PROMPT = "caption en"


def sampled(processor: Any, texts: Sequence[str], ended: Sequence[bool]) -> torch.Tensor:
    """Suffix tokens as `generate` returns them: right-padded, `<eos>` where the caption ended."""
    tokenizer = processor.tokenizer
    rows = [
        tokenizer.encode(text, add_special_tokens=False) + [tokenizer.eos_token_id] * end
        for text, end in zip(texts, ended, strict=True)
    ]
    longest = max(map(len, rows))
    return torch.tensor([row + [tokenizer.pad_token_id] * (longest - len(row)) for row in rows])


def scored_batch(model: Any, processor: Any, images: Sequence[bytes], suffixes: torch.Tensor) -> dict[str, Any]:
    prompt = prompt_inputs(processor, images, PROMPT)
    features = image_features(model, prompt.pop("pixel_values")).pooler_output
    return with_suffix(prompt, suffixes, processor.tokenizer.pad_token_id, features)
