"""Caption images, each with its confidence: the mean log-probability of its tokens, <eos> included."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, PaliGemmaProcessor

from captioning.decoding import Caption, decode_suffixes, generate_suffixes, model_inputs


class ChosenLogProbabilities(LogitsProcessor):
    """Record the log-probability of the token that greedy decoding chooses, step by step.

    `generate` could return the scores of all tokens, but at PaliGemma's 257,000 they would need gigabytes.
    """

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.steps.append(scores.float().log_softmax(dim=-1).amax(dim=-1))
        return scores


def captions_with_confidence(
    model: Any, processor: PaliGemmaProcessor, images: Sequence[bytes], prompt: str, maximum_tokens: int
) -> list[tuple[Caption, float]]:
    """Return a greedy caption of each image, of which all are decoded together, and its confidence (0 or less)."""
    model.eval()
    recorder = ChosenLogProbabilities()
    inputs = model_inputs(model, processor, images, prompt)
    suffixes = generate_suffixes(model, processor, inputs, maximum_tokens, logits_processor=[recorder])
    is_token = suffixes != processor.tokenizer.pad_token_id
    chosen = torch.stack(recorder.steps, dim=1).where(is_token, 0.0)
    means = chosen.sum(dim=1) / is_token.sum(dim=1).clamp(min=1)
    return list(zip(decode_suffixes(processor, suffixes), means.tolist(), strict=True))
