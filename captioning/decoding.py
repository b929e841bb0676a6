"""Generate captions with a model, greedily or sampled, in batches.

The tokens that a caption must not hold (image, padding, beginning) are suppressed here, and again in scst/sampling.py,
which samples and scores captions itself.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PaliGemmaProcessor

from captioning.paligemma.model import prompt_inputs


@dataclass(frozen=True)
class Caption:
    """A decoded caption: its text, its number of tokens with `<eos>`, and whether it ended within the limit."""

    text: str
    tokens: int
    ended: bool


def suppressed_tokens(processor: PaliGemmaProcessor) -> list[int]:
    """Return the ids of tokens that a caption must not hold."""
    return [processor.image_token_id, processor.tokenizer.pad_token_id, processor.tokenizer.bos_token_id]


def generate_suffixes(
    model: Any, processor: PaliGemmaProcessor, inputs: dict[str, Any], maximum_tokens: int, **sampling: Any
) -> Int[Tensor, "rows tokens"]:
    """Decode greedily, or sample with `do_sample=True, …`; return suffix tokens, right-padded after `<eos>`."""
    tokenizer = processor.tokenizer
    with torch.no_grad(), contiguous_head_input(model):
        sequences = model.generate(
            **inputs,
            max_new_tokens=maximum_tokens,
            suppress_tokens=suppressed_tokens(processor),
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **({"do_sample": False} | sampling),
        )
    return sequences[:, inputs["input_ids"].shape[1] :]


@contextmanager
def contiguous_head_input(model: Any) -> Iterator[None]:
    """Give the language-model head contiguous rows, where `generate` passes a slice of all positions.

    torch multiplies a slice as a batch, for which a CPU copies the head once per image: 1 GB and 5 s each at 3B.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    try:
        yield
    finally:
        hook.remove()


def decode_suffixes(processor: PaliGemmaProcessor, suffixes: Int[Tensor, "rows tokens"]) -> list[Caption]:
    """Return text, length and end of each row of suffix tokens."""
    texts = processor.batch_decode(suffixes, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    lengths = (suffixes != processor.tokenizer.pad_token_id).sum(dim=1).tolist()
    ends = (suffixes == processor.tokenizer.eos_token_id).any(dim=1).tolist()
    return [Caption(text.strip(), length, ended) for text, length, ended in zip(texts, lengths, ends, strict=True)]


def model_inputs(model: Any, processor: PaliGemmaProcessor, images: Sequence[bytes], prompt: str) -> dict[str, Any]:
    """Return the inputs for images and prompt, with the model's dtype and on its device."""
    inputs = prompt_inputs(processor, images, prompt)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    return {key: value.to(model.device) for key, value in inputs.items()}


def greedy_captions(
    model: Any, processor: PaliGemmaProcessor, images: Sequence[bytes], prompt: str, maximum_tokens: int, batch: int
) -> Iterator[Caption]:
    """Yield a greedy caption of each image, in order."""
    model.eval()
    for start in range(0, len(images), batch):
        inputs = model_inputs(model, processor, images[start : start + batch], prompt)
        yield from decode_suffixes(processor, generate_suffixes(model, processor, inputs, maximum_tokens))
