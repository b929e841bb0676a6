"""One SCST step as the paper's notebook would write it, from library calls alone: the peer of scst/refine.py.

Two `generate` calls that share nothing, each encoding its images and running its prompts anew; a JVM tokenizer and
pycocoevalcap at every step; an update on rows that repeat image and prompt for each sample, pixels, full head and all.
"""

import contextlib
import io
from collections.abc import Callable, Mapping, Sequence
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
    barred: Sequence[int] = (),
    temperature: float = 1.0,
) -> Float[Tensor, "images captions"]:
    """Log-probability of each caption: one row a caption, its image encoded and its prompt run for it alone.

    `prompt`: what the processor gives for the images; `model` may be an adapter's shell.
    """
    number, rows = captions.shape[1], captions.flatten(0, 1)
    many = {key: value.repeat_interleave(number, dim=0) for key, value in prompt.items()}
    said = (rows != pad).long()
    logits = model(
        input_ids=torch.cat([many["input_ids"], rows], dim=1),
        attention_mask=torch.cat([many["attention_mask"], said], dim=1),
        token_type_ids=torch.cat([many["token_type_ids"], torch.ones_like(said)], dim=1),
        pixel_values=many["pixel_values"],
    ).logits
    scores = logits[:, many["input_ids"].shape[1] - 1 : -1].float() / temperature
    scores[..., list(barred)] = -torch.inf
    tokens = scores.log_softmax(dim=-1).gather(2, rows[..., None])[..., 0]
    return tokens.masked_fill(said == 0, 0.0).sum(dim=1).unflatten(0, (-1, number))


Rewards = Callable[[Sequence[str], Sequence[Sequence[str]]], Tensor]  # captions, references of each image


def papers_step(
    model: Any, processor: Any, prompt: Mapping[str, Tensor], references: Sequence[Sequence[str]], samples: int,
    maximum_tokens: int, temperature: float, rewards_of: Rewards,
) -> Float[Tensor, ""]:  # fmt: skip
    """Greedy baseline, `samples` drawn captions an image, rewards, loss and backward. `references`: tokens by image."""
    pad, tokenizer = processor.tokenizer.pad_token_id, processor.tokenizer
    model.eval()
    greedy = generate_suffixes(model, processor, dict(prompt), maximum_tokens)
    many = {key: value.repeat_interleave(samples, dim=0) for key, value in prompt.items()}
    drawn = generate_suffixes(model, processor, many, maximum_tokens, do_sample=True, temperature=temperature, top_k=0)
    baseline, rewards = (
        rewards_of(tokenizer.batch_decode(captions, skip_special_tokens=True), references)
        for captions in (greedy, drawn)
    )
    advantage = rewards.view(-1, samples) - baseline[:, None]
    log_p = repeated_log_probabilities(model, prompt, drawn.view(-1, samples, drawn.shape[1]), pad, (), temperature)
    loss = -(advantage.to(log_p) * log_p).mean()
    loss.backward()
    return loss.detach()


def rewards_from_text(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Float[Tensor, " captions"]:
    """pycocoevalcap's CIDEr of each caption as its own evaluation makes it: references and captions tokenised at each
    call. Several captions in turn belong to one image; `references`: texts by image."""
    many = _by_caption(captions, references)
    return _cider(_tokens(many), captions)


def rewards_from_tokens(captions: Sequence[str], references: Sequence[Sequence[str]]) -> Float[Tensor, " captions"]:
    """The same with `references` tokenised before, once for all."""
    return _cider(_by_caption(captions, references), captions)


def _by_caption(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[int, list[str]]:
    per_image = len(captions) // len(references)
    return {number: list(references[number // per_image]) for number in range(len(captions))}


def _cider(references: Mapping[int, list[str]], captions: Sequence[str]) -> Float[Tensor, " captions"]:
    with contextlib.redirect_stdout(io.StringIO()):
        said = _tokens({number: [text] for number, text in enumerate(captions)})
        return torch.from_numpy(Cider().compute_score(references, said)[1])


def _tokens(texts: Mapping[int, list[str]]) -> dict[int, list[str]]:
    return PTBTokenizer().tokenize({number: [{"caption": text} for text in own] for number, own in texts.items()})
