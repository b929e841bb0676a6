"""What PaliGemma is given: the mask that hides the future, prompts, the collator's rows, images."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from benchmarks.tutorial import Collator
from captioning.paligemma.model import (
    IGNORED,
    decode_image,
    hidden_states,
    load_processor,
    prompt_inputs,
    require_suffix_mask,
    tokenise,
)
from tests.helpers.decoders import BOTH

PROMPT = "caption en"


def plain(checkpoint: Path, **options: Any) -> PaliGemmaForConditionalGeneration:
    return PaliGemmaForConditionalGeneration.from_pretrained(checkpoint, **options)


def leak(model: Any, batch: dict[str, Any], **changed: Any) -> float:
    """How far earlier suffix logits move when the last token of each row becomes another one."""
    inputs = {key: value for key, value in (batch | changed).items() if key != "labels" and value is not None}
    last = [int((row != IGNORED).nonzero().max()) for row in batch["labels"]]
    first = int((batch["labels"][0] != IGNORED).nonzero().min())
    other = inputs["input_ids"].clone()
    for row, column in enumerate(last):
        other[row, column] = 700
    with torch.no_grad():
        moved = (model(**inputs).logits - model(**inputs | {"input_ids": other}).logits).abs()
    return max(moved[row, first - 1 : column].max().item() for row, column in enumerate(last))


@pytest.mark.parametrize(
    ("decoder", "attention"), [("gemma", "eager"), ("gemma", "sdpa"), ("gemma2", "eager")], indirect=["decoder"]
)
@pytest.mark.parametrize("training", [False, True])
def test_the_collators_mask_hides_the_future(
    checkpoint: Path, batch: dict[str, Any], attention: str, training: bool
) -> None:
    model = plain(checkpoint, attn_implementation=attention).train(training)
    assert leak(model, batch) == 0
    # Zero on the suffix is bidirectional under every attention: why require_suffix_mask is there.
    assert leak(model, batch, token_type_ids=torch.zeros_like(batch["token_type_ids"])) > 0.1


def test_without_token_type_ids_sdpa_leaks_where_nothing_is_padded(
    checkpoint: Path, processor: Any, pictures: list[bytes]
) -> None:
    rows = [{"image": image, "prompt": PROMPT, "caption": "a red plane"} for image in pictures[:2]]
    batch = Collator(processor)(rows)
    assert batch["attention_mask"].all()
    model = plain(checkpoint, attn_implementation="sdpa")
    assert leak(model, batch) == 0
    assert leak(model, batch, token_type_ids=None) > 0.1


@BOTH
def test_our_own_forward_hides_the_future(quantised: Any, batch: dict[str, Any]) -> None:
    """The project's own forward, whose attention is SDPA, or in Gemma 2 eager."""
    column = int((batch["labels"][0] != IGNORED).nonzero().max())
    other = batch["input_ids"].clone()
    other[0, column] = 700
    with torch.no_grad():
        moved = hidden_states(quantised, batch) - hidden_states(quantised, batch | {"input_ids": other})
    assert moved[0, :column].abs().max() == 0
    assert moved[0, column].abs().max() > 0.1


@pytest.mark.parametrize("fault", ["missing", "zero", "one on the prefix", "one on the padding", "no suffix"])
def test_check_mask_refuses(batch: dict[str, Any], fault: str) -> None:
    require_suffix_mask(batch)
    types = batch["token_type_ids"].clone()
    if fault == "missing":
        batch.pop("token_type_ids")
    elif fault == "zero":
        batch["token_type_ids"] = torch.zeros_like(types)
    elif fault == "one on the prefix":
        types[0, 5] = 1
        batch["token_type_ids"] = types
    elif fault == "one on the padding":
        batch["token_type_ids"] = types.masked_fill(batch["attention_mask"] == 0, 1)
    else:
        types[1], batch["labels"][1] = 0, IGNORED
        batch["token_type_ids"] = types
    with pytest.raises(ValueError, match="token_type_ids"):
        require_suffix_mask(batch)


def test_the_prompt_has_one_beginning_and_ends_its_line(processor: Any, pictures: list[bytes]) -> None:
    ids = prompt_inputs(processor, pictures[:1], PROMPT)["input_ids"][0].tolist()
    tokenizer = processor.tokenizer
    images = [processor.image_token_id] * processor.image_seq_length
    assert len(images) == 4
    assert ids == [*images, tokenizer.bos_token_id, *tokenizer.encode(f"{PROMPT}\n", add_special_tokens=False)]
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.decode(ids[-1:]) == "\n"


def test_prompts_start_as_training_rows_do(processor: Any, pictures: list[bytes], batch: dict[str, Any]) -> None:
    prompts = prompt_inputs(processor, pictures, PROMPT)
    length = prompts["input_ids"].shape[1]
    for key in ("input_ids", "attention_mask", "token_type_ids"):
        assert torch.equal(prompts[key], batch[key][:, :length])
    assert (prompts["token_type_ids"] == 0).all()
    assert torch.equal(prompts["pixel_values"], batch["pixel_values"])


@pytest.mark.parametrize(
    ("prompts", "suffixes"),
    [
        (["caption en"] * 3, ["a red plane", "many green trees are in the park .", "."]),
        (["answer en what place is this ?", "tag en", "caption en"], ["port", "a , b", "café 空港\u00a0x"]),
        (["caption en"], [" a  b "]),
    ],
)
def test_tokenise_is_the_collators_text_half(
    processor: Any, pictures: list[bytes], prompts: list[str], suffixes: list[str]
) -> None:
    rows = [
        {"image": image, "prompt": prompt, "caption": caption}
        for image, prompt, caption in zip(pictures, prompts, suffixes, strict=False)
    ]
    theirs = Collator(processor)(rows)
    ours = tokenise(processor, prompts, suffixes)
    assert ours.keys() | {"pixel_values"} == theirs.keys()
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]), key


def test_the_collator_is_the_plain_processor_with_its_prompt(
    checkpoint: Path, processor: Any, pictures: list[bytes]
) -> None:
    row = {"image": pictures[0], "prompt": PROMPT, "caption": "a red plane"}
    theirs = PaliGemmaProcessor.from_pretrained(checkpoint)(
        images=decode_image(pictures[0]), text="<image>caption en", suffix="a red plane", return_tensors="pt"
    )
    ours = Collator(processor)([row])
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key
    assert ours["labels"][0, -1] == processor.tokenizer.eos_token_id


def test_the_processor_pads_on_the_right(checkpoint: Path) -> None:
    assert load_processor(checkpoint).tokenizer.padding_side == "right"


@pytest.mark.parametrize("mode", ["P", "L", "RGBA", "LA", "CMYK", "1", "RGB"])
def test_every_kind_of_image_becomes_rgb(mode: str) -> None:
    buffer = io.BytesIO()
    picture = Image.new("RGB", (5, 3), (255, 255, 255)).convert(mode)
    picture.save(buffer, "TIFF" if mode == "CMYK" else "PNG")
    read = decode_image(buffer.getvalue())
    assert (read.mode, read.size) == ("RGB", (5, 3))
    assert read.getpixel((4, 2)) == (255, 255, 255)
