"""Caption an image, with the probability of each word.

A word's probability is the product of those of its tokens, each given the tokens before it; the caption's also has that
of `<eos>`. They are the model's own, over all tokens that a caption may hold, and say nothing about truth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PaliGemmaProcessor

from captioning.commands.scenes.confidence import ChosenLogProbabilities
from captioning.decoding import decode_suffixes, generate_suffixes, model_inputs


@dataclass(frozen=True)
class Word:
    text: str
    probability: float


@dataclass(frozen=True)
class WordedCaption:
    """A greedy caption: its text, its words, its probability as a whole, and whether it ended within the limit."""

    text: str
    words: tuple[Word, ...]
    probability: float
    ended: bool


def caption_words(
    model: Any, processor: PaliGemmaProcessor, image: bytes, prompt: str, maximum_tokens: int
) -> WordedCaption:
    """Return the caption that the `generate` stage would write for `image`, with probabilities."""
    model.eval()
    recorder = ChosenLogProbabilities()
    inputs = model_inputs(model, processor, [image], prompt)
    suffixes = generate_suffixes(model, processor, inputs, maximum_tokens, logits_processor=[recorder])
    (caption,) = decode_suffixes(processor, suffixes)
    tokens = suffixes[0, : caption.tokens].tolist()
    logs = [float(step[0]) for step in recorder.steps[: len(tokens)]]
    words = split_words(processor.tokenizer, tokens, logs)
    return WordedCaption(caption.text, words, math.exp(math.fsum(logs)), caption.ended)


def split_words(tokenizer: Any, tokens: Sequence[int], logs: Sequence[float]) -> tuple[Word, ...]:
    """Return the words of `tokens` with their probabilities; `logs` are the tokens' log-probabilities."""
    special, sums = set(tokenizer.all_special_ids), list[float]()
    texts = [_decode(tokenizer, tokens[: end + 1]) for end in range(len(tokens))]
    for token, log, text in zip(tokens, logs, texts, strict=True):
        if token in special:  # <eos> belongs to no word
            continue
        sums += [0.0] * max(0, len(text.split()) - len(sums))
        if sums:
            sums[-1] += log
    words = texts[-1].split() if texts else []
    return tuple(Word(word, math.exp(log)) for word, log in zip(words, sums, strict=True))


def _decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
