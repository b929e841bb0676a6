"""Greedy decoding against a loop of full forwards; ends, lengths and forbidden tokens by hand."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from captioning.decoding import Caption, decode_suffixes, generate_suffixes, greedy_captions, suppressed_tokens
from captioning.paligemma.model import image_features, pixel_values, prompt_inputs, prompt_tokens
from captioning.scst.packing import prefill
from captioning.scst.rollout import rollout
from captioning.scst.sampling import Sampling
from tests.helpers.decoders import BOTH

PROMPT = "caption en"


def decode_without_cache(model: Any, processor: Any, image: bytes, limit: int) -> list[int]:
    """Decode an image's suffix by `limit` full forwards; suffix tokens have type 1."""
    inputs = dict(prompt_inputs(processor, [image], PROMPT))
    suffix: list[int] = []
    while len(suffix) < limit and processor.tokenizer.eos_token_id not in suffix:
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
        logits[suppressed_tokens(processor)] = -torch.inf
        suffix.append(int(logits.argmax()))
        for key, value in (("input_ids", suffix[-1]), ("attention_mask", 1), ("token_type_ids", 1)):
            inputs[key] = torch.cat([inputs[key], torch.tensor([[value]])], dim=1)
    return suffix


@pytest.mark.parametrize("limit", [2, 12])
@pytest.mark.parametrize("strength", [0.0, 0.3])
@BOTH
def test_greedy_captions_are_those_of_full_forwards(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], limit: int, strength: float
) -> None:
    model = adapted(strength=strength).eval()
    captions = list(greedy_captions(model, processor, pictures, PROMPT, limit, 4))
    eos = processor.tokenizer.eos_token_id
    for image, caption in zip(pictures, captions, strict=True):
        suffix = decode_without_cache(model, processor, image, limit)
        text = processor.tokenizer.decode(suffix, skip_special_tokens=True)
        assert caption == Caption(text.strip(), len(suffix), eos in suffix)
    assert len({caption.text for caption in captions}) > 1


@BOTH
def test_learned_captions_come_out(
    quantised: Any, processor: Any, pictures: list[bytes], captions: list[list[str]]
) -> None:
    texts = [references[0] for references in captions]
    lengths = [len(processor.tokenizer.encode(text, add_special_tokens=False)) + 1 for text in texts]
    expected = [Caption(text, length, True) for text, length in zip(texts, lengths, strict=True)]
    assert list(greedy_captions(quantised, processor, pictures, PROMPT, 40, 2)) == expected


def test_the_batch_size_changes_nothing(quantised: Any, processor: Any, pictures: list[bytes]) -> None:
    images = [*pictures, pictures[0]]
    expected = list(greedy_captions(quantised, processor, images, PROMPT, 12, 5))
    for batch in (1, 3, 8):
        assert list(greedy_captions(quantised, processor, images, PROMPT, 12, batch)) == expected
    assert list(greedy_captions(quantised, processor, [], PROMPT, 12, 4)) == []


def test_lengths_and_ends_by_hand(processor: Any) -> None:
    tokenizer = processor.tokenizer
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    red, plane = (tokenizer.encode(word, add_special_tokens=False) for word in (" red", " plane"))
    assert len(red) == len(plane) == 1
    rows = torch.tensor([[*red, *plane, eos], [*red, eos, pad], [eos, pad, pad], [*red, *plane, *plane]])
    assert decode_suffixes(processor, rows) == [
        Caption("red plane", 3, True),
        Caption("red", 2, True),
        Caption("", 1, True),
        Caption("red plane plane", 3, False),
    ]


@pytest.mark.parametrize("sampling", [{}, {"do_sample": True, "temperature": 1.0, "top_k": 0}])
def test_suppressed_tokens_never_come_whatever_their_logits(
    quantised: Any, processor: Any, pictures: list[bytes], sampling: dict[str, Any]
) -> None:
    forbidden = suppressed_tokens(processor)
    assert processor.tokenizer.convert_ids_to_tokens(forbidden) == ["<image>", "<pad>", "<bos>"]

    def raise_forbidden(_: Any, __: Any, logits: torch.Tensor) -> torch.Tensor:
        logits = logits.clone()
        logits[..., forbidden] += 1000
        return logits

    quantised.lm_head.register_forward_hook(raise_forbidden)
    inputs = prompt_inputs(processor, pictures, PROMPT)
    assert set(quantised(**inputs).logits[:, -1].argmax(dim=-1).tolist()) <= set(forbidden)
    suffixes = generate_suffixes(quantised, processor, inputs, 6, **sampling)
    tokens = suffixes[suffixes != processor.tokenizer.pad_token_id]
    assert not set(tokens.tolist()) & set(forbidden)
    ended = (suffixes == processor.tokenizer.eos_token_id).cumsum(dim=1) > 0
    assert (suffixes[~ended] != processor.tokenizer.pad_token_id).all()  # padding comes only after an end


@BOTH
def test_the_head_gets_contiguous_rows(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slice or a view would make a CPU copy the head once per image. No hook stays behind."""
    model = adapted().eval()
    base, contiguous = model.get_base_model(), list[bool]()
    forward = base.lm_head.forward
    monkeypatch.setattr(base.lm_head, "forward", lambda rows: contiguous.append(rows.is_contiguous()) or forward(rows))
    list(greedy_captions(model, processor, pictures, PROMPT, 3, len(pictures)))
    assert contiguous and not base.lm_head._forward_pre_hooks
    with torch.no_grad():
        features = image_features(base, pixel_values(processor, pictures)).pooler_output
        prefix = prefill(base, prompt_tokens(processor, PROMPT), features)
    points = torch.rand(len(pictures), 2, 3)
    rollout(base, prefix, Sampling(tuple(suppressed_tokens(processor))), points, True, (-1, 0))
    assert all(contiguous)
