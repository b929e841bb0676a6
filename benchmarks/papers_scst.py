"""An SCST step as the paper's notebook would write it, from library calls: the peer of scst/refine.py.

It has two `generate` calls that share nothing, so each encodes its images and runs its prompts; a JVM tokenizer and
pycocoevalcap in each step; and an update on rows that repeat pixels and prompt for each sample, with the full head.
"""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from torch import Tensor

from captioning.decoding import generate_suffixes


def repeated_log_probabilities(
    model: Any,
    prompt: Mapping[str, Tensor],
    captions: Int[Tensor, "images captions tokens"],
    pad: int,
    suppressed: Sequence[int] = (),
    temperature: float = 1.0,
) -> Float[Tensor, "images captions"]:
    """Return the log-probability of each caption; each is a row with its own image and prompt.

    `prompt`: the processor's output for the images; `model` may have an adapter.
    """
    samples, rows = captions.shape[1], captions.flatten(0, 1)
    repeated = {key: value.repeat_interleave(samples, dim=0) for key, value in prompt.items()}
    is_token = (rows != pad).long()
    logits = model(
        input_ids=torch.cat([repeated["input_ids"], rows], dim=1),
        attention_mask=torch.cat([repeated["attention_mask"], is_token], dim=1),
        token_type_ids=torch.cat([repeated["token_type_ids"], torch.ones_like(is_token)], dim=1),
        pixel_values=repeated["pixel_values"],
    ).logits
    scores = logits[:, repeated["input_ids"].shape[1] - 1 : -1].float() / temperature
    scores[..., list(suppressed)] = -torch.inf
    tokens = scores.log_softmax(dim=-1).gather(2, rows[..., None])[..., 0]
    return tokens.masked_fill(is_token == 0, 0.0).sum(dim=1).unflatten(0, (-1, samples))


Rewards = Callable[[Sequence[str], Sequence[Sequence[str]]], Tensor]  # captions, references of each image


@dataclass(frozen=True)
class PeerSampling:
    samples: int  # per image
    maximum_tokens: int
    temperature: float
    updated: int  # images whose samples are scored at a time, with gradients


def papers_step(
    model: Any,
    processor: Any,
    prompt: Mapping[str, Tensor],
    references: Sequence[Sequence[str]],
    sampling: PeerSampling,
    compute_rewards: Rewards,
) -> Float[Tensor, ""]:
    """Compute baseline, samples, rewards, loss and gradients. `references`: tokens by image."""
    samples, maximum_tokens, temperature, updated = astuple(sampling)
    pad, tokenizer = processor.tokenizer.pad_token_id, processor.tokenizer
    model.eval()
    greedy = generate_suffixes(model, processor, dict(prompt), maximum_tokens)
    repeated = {key: value.repeat_interleave(samples, dim=0) for key, value in prompt.items()}
    sampled = generate_suffixes(
        model, processor, repeated, maximum_tokens, do_sample=True, temperature=temperature, top_k=0
    )
    baseline, rewards = (
        compute_rewards(tokenizer.batch_decode(captions, skip_special_tokens=True), references)
        for captions in (greedy, sampled)
    )
    advantage = rewards.view(-1, samples) - baseline[:, None]
    captions, total = sampled.view(-1, samples, sampled.shape[1]), torch.zeros((), device=sampled.device)
    for start in range(0, len(captions), updated):
        rows = slice(start, start + updated)
        inputs = {key: value[rows] for key, value in prompt.items()}
        log_p = repeated_log_probabilities(model, inputs, captions[rows], pad, (), temperature)
        loss = -(advantage[rows].to(log_p) * log_p).sum() / advantage.numel()
        loss.backward()
        total += loss.detach()
    return total


def rewards_from_text(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Float[Tensor, " captions"]:
    """Return each caption's CIDEr as pycocoevalcap's evaluation does, which tokenises all texts in each call.

    Consecutive captions belong to the same image; `references`: texts by image.
    """
    return _cider(_tokenise(_by_caption(captions, references)), captions)


def rewards_from_tokens(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Float[Tensor, " captions"]:
    """Do the same for references that are tokenised in advance."""
    return _cider(_by_caption(captions, references), captions)


def _by_caption(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[int, list[str]]:
    per_image = len(captions) // len(references)
    return {number: list(references[number // per_image]) for number in range(len(captions))}


def _cider(references: Mapping[int, list[str]], captions: Sequence[str]) -> Float[Tensor, " captions"]:
    with contextlib.redirect_stdout(io.StringIO()):
        tokens = _tokenise({number: [text] for number, text in enumerate(captions)})
        return torch.from_numpy(Cider().compute_score(references, tokens)[1])


def _tokenise(texts: Mapping[int, list[str]]) -> dict[int, list[str]]:
    captions = {number: [{"caption": text} for text in image_texts] for number, image_texts in texts.items()}
    return PTBTokenizer().tokenize(captions)
