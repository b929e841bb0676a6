"""Captions from a model: greedy or sampled, in batches, with what became of each.

A sampled caption comes from the full softmax at a temperature; tokens that no caption may hold (image, padding,
beginning) are barred here and in scst/sampling.py, where they are drawn and scored.
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
    """A decoded caption: its text, its tokens with `<eos>`, and whether it ended within the limit."""

    text: str
    tokens: int
    ended: bool


def barred_tokens(processor: PaliGemmaProcessor) -> list[int]:
    """Token ids that no caption may hold."""
    return [processor.image_token_id, processor.tokenizer.pad_token_id, processor.tokenizer.bos_token_id]


def generate(
    model: Any, processor: PaliGemmaProcessor, inputs: dict[str, Any], maximum_tokens: int, **sampling: Any
) -> Int[Tensor, "rows tokens"]:
    """Suffix tokens of greedy decoding, or of sampling with `do_sample=True, …`; right-padded after `<eos>`."""
    tokenizer = processor.tokenizer
    with torch.no_grad(), head_on_rows(model):
        sequences = model.generate(
            **inputs,
            max_new_tokens=maximum_tokens,
            suppress_tokens=barred_tokens(processor),
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **({"do_sample": False} | sampling),
        )
    return sequences[:, inputs["input_ids"].shape[1] :]


@contextmanager
def head_on_rows(model: Any) -> Iterator[None]:
    """The head is given the last positions as rows of their own, not as the slice of all that `generate` hands it.

    A slice torch multiplies as a batch, for which a CPU copies the head once an image: at 3B a gigabyte and five
    seconds each.
    """
    head = model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
    try:
        yield
    finally:
        hook.remove()


def read(processor: PaliGemmaProcessor, suffixes: Int[Tensor, "rows tokens"]) -> list[Caption]:
    """Text, length and end of each row of suffix tokens."""
    texts = processor.batch_decode(suffixes, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    lengths = (suffixes != processor.tokenizer.pad_token_id).sum(dim=1).tolist()
    ended = (suffixes == processor.tokenizer.eos_token_id).any(dim=1).tolist()
    return [Caption(text.strip(), *rest) for text, *rest in zip(texts, lengths, ended, strict=True)]


def greedy_captions(
    model: Any, processor: PaliGemmaProcessor, images: Sequence[bytes], prompt: str, maximum_tokens: int, batch: int
) -> Iterator[Caption]:
    """One greedy caption an image, in order."""
    model.eval()
    for start in range(0, len(images), batch):
        inputs = prompt_inputs(processor, images[start : start + batch], prompt)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        inputs = {key: value.to(model.device) for key, value in inputs.items()}
        yield from read(processor, generate(model, processor, inputs, maximum_tokens))
