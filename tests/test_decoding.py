"""Greedy decoding against a loop of full forwards; ends, lengths and barred tokens by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from captioning.decoding import Caption, barred_tokens, generate, greedy_captions, read
from captioning.paligemma.model import image_features, pixels, prompt_inputs, prompt_tokens
from captioning.scst.packing import prefill
from captioning.scst.rollout import rollout
from captioning.scst.sampling import Sampling
from tests.helpers.decoders import BOTH

PROMPT = "caption en"


def loop(model: Any, processor: Any, image: bytes, limit: int) -> list[int]:
    """The suffix of one picture by `limit` full forwards without a cache: the suffix has type 1."""
    inputs = dict(prompt_inputs(processor, [image], PROMPT))
    suffix: list[int] = []
    while len(suffix) < limit and processor.tokenizer.eos_token_id not in suffix:
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
        logits[barred_tokens(processor)] = -torch.inf
        suffix.append(int(logits.argmax()))
        for key, value in (("input_ids", suffix[-1]), ("attention_mask", 1), ("token_type_ids", 1)):
            inputs[key] = torch.cat([inputs[key], torch.tensor([[value]])], dim=1)
    return suffix


@pytest.mark.parametrize("limit", [2, 12])
@pytest.mark.parametrize("strength", [0.0, 0.3])
@BOTH
def test_greedy_is_a_loop_of_full_forwards(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], limit: int, strength: float
) -> None:
    model = adapted(strength=strength).eval()
    captions = list(greedy_captions(model, processor, pictures, PROMPT, limit, 4))
    eos = processor.tokenizer.eos_token_id
    for image, caption in zip(pictures, captions, strict=True):
        suffix = loop(model, processor, image, limit)
        text = processor.tokenizer.decode(suffix, skip_special_tokens=True)
        assert caption == Caption(text.strip(), len(suffix), eos in suffix)
    assert len({caption.text for caption in captions}) > 1


@BOTH
def test_the_taught_captions_come_out(
    quantised: Any, processor: Any, pictures: list[bytes], captions: list[list[str]]
) -> None:
    made = list(greedy_captions(quantised, processor, pictures, PROMPT, 40, 2))
    assert [caption.text for caption in made] == [own[0] for own in captions]
    assert all(caption.ended for caption in made)
    assert [caption.tokens for caption in made] == [
        len(processor.tokenizer.encode(own[0], add_special_tokens=False)) + 1 for own in captions
    ]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_batches_change_nothing(quantised: Any, processor: Any, pictures: list[bytes], batch: int) -> None:
    images = [*pictures, pictures[0]]
    whole = list(greedy_captions(quantised, processor, images, PROMPT, 12, 5))
    assert list(greedy_captions(quantised, processor, images, PROMPT, 12, batch)) == whole


def test_no_picture_no_caption(quantised: Any, processor: Any) -> None:
    assert list(greedy_captions(quantised, processor, [], PROMPT, 12, 4)) == []


def test_lengths_and_ends_by_hand(processor: Any) -> None:
    tokenizer = processor.tokenizer
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    red, plane = (tokenizer.encode(word, add_special_tokens=False) for word in (" red", " plane"))
    assert len(red) == len(plane) == 1
    rows = torch.tensor([[*red, *plane, eos], [*red, eos, pad], [eos, pad, pad], [*red, *plane, *plane]])
    assert read(processor, rows) == [
        Caption("red plane", 3, True),
        Caption("red", 2, True),
        Caption("", 1, True),
        Caption("red plane plane", 3, False),
    ]


def test_what_the_limit_cuts_has_not_ended(quantised: Any, processor: Any, pictures: list[bytes]) -> None:
    cut = list(greedy_captions(quantised, processor, pictures, PROMPT, 3, 4))
    assert [(caption.tokens, caption.ended) for caption in cut] == [(3, False)] * 4


def test_barred_are_image_padding_and_beginning(processor: Any) -> None:
    names = processor.tokenizer.convert_ids_to_tokens(barred_tokens(processor))
    assert names == ["<image>", "<pad>", "<bos>"]


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 1.0, "top_k": 0}])
def test_barred_tokens_never_come_whatever_their_logits(
    quantised: Any, processor: Any, pictures: list[bytes], sampling: dict[str, Any]
) -> None:
    barred = barred_tokens(processor)

    def raise_barred(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[..., barred] += 1000
        return logits

    quantised.lm_head.register_forward_hook(raise_barred)
    inputs = prompt_inputs(processor, pictures, PROMPT)
    assert set(quantised(**inputs).logits[:, -1].argmax(dim=-1).tolist()) <= set(barred)
    suffixes = generate(quantised, processor, inputs, 6, **sampling)
    before_the_end = suffixes[suffixes != processor.tokenizer.pad_token_id]
    assert not set(before_the_end.tolist()) & set(barred)
    ended = (suffixes == processor.tokenizer.eos_token_id).cumsum(dim=1) > 0
    assert (suffixes[~ended] != processor.tokenizer.pad_token_id).all()  # padding stands after an end only


@BOTH
def test_the_head_is_given_rows_of_their_own(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a slice or a view torch makes a batch, and a CPU a copy of the head for each image of it; no hook is left."""
    model = adapted().eval()
    base, seen = model.get_base_model(), list[bool]()
    forward = base.lm_head.forward
    monkeypatch.setattr(base.lm_head, "forward", lambda rows: seen.append(rows.is_contiguous()) or forward(rows))
    list(greedy_captions(model, processor, pictures, PROMPT, 3, len(pictures)))
    assert seen and not base.lm_head._forward_pre_hooks
    with torch.no_grad():
        features = image_features(base, pixels(processor, pictures)).pooler_output
        prefix = prefill(base, prompt_tokens(processor, PROMPT), features)
    rollout(base, prefix, Sampling(tuple(barred_tokens(processor))), 2, True, 3, eos=-1, pad=0)
    assert all(seen)
