"""PaliGemma's inputs: the mask hides the future, prompts and tokens equal the library's, every image becomes RGB."""

import io
from collections.abc import Callable
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
    encode_texts,
    hidden_states,
    prompt_inputs,
    require_prefix_lm_mask,
)
from tests.helpers.decoders import BOTH

PROMPT = "caption en"
OTHER_TOKEN = 700


def measure_leak(model: Any, batch: dict[str, Any], **changes: Any) -> float:
    """Return how much earlier suffix logits change when the last token of each row becomes another one."""
    inputs = {key: value for key, value in (batch | changes).items() if key != "labels"}
    ends = [int((row != IGNORED).nonzero().max()) for row in batch["labels"]]
    start = int((batch["labels"][0] != IGNORED).nonzero().min())
    tokens = inputs["input_ids"].clone()
    for row, end in enumerate(ends):
        tokens[row, end] = OTHER_TOKEN
    with torch.no_grad():
        changed = (model(**inputs).logits - model(**inputs | {"input_ids": tokens}).logits).abs()
    return max(changed[row, start - 1 : end].max().item() for row, end in enumerate(ends))


@pytest.mark.parametrize(
    ("decoder", "attention"), [("gemma", "eager"), ("gemma", "sdpa"), ("gemma2", "eager")], indirect=["decoder"]
)
@pytest.mark.parametrize("training", [False, True])
def test_suffix_mask_hides_the_future(checkpoint: Path, batch: dict[str, Any], attention: str, training: bool) -> None:
    model: Any = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint, attn_implementation=attention)
    model.train(training)
    assert measure_leak(model, batch) == 0
    # Zeros on the suffix make every attention bidirectional: the reason for require_prefix_lm_mask.
    assert measure_leak(model, batch, token_type_ids=torch.zeros_like(batch["token_type_ids"])) > 0.1


@BOTH
def test_project_forward_hides_the_future(quantised: Any, batch: dict[str, Any]) -> None:
    column = int((batch["labels"][0] != IGNORED).nonzero().max())
    tokens = batch["input_ids"].clone()
    tokens[0, column] = OTHER_TOKEN
    with torch.no_grad():
        changed = hidden_states(quantised, batch) - hidden_states(quantised, batch | {"input_ids": tokens})
    assert changed[0, :column].abs().max() == 0
    assert changed[0, column].abs().max() > 0.1


WRONG_TYPES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "missing": lambda batch: None,
    "zero": lambda batch: batch["token_type_ids"] * 0,
    "one on the prefix": lambda batch: batch["token_type_ids"].index_fill(1, torch.tensor([5]), 1),
    "one on the padding": lambda batch: batch["token_type_ids"].masked_fill(batch["attention_mask"] == 0, 1),
}


@pytest.mark.parametrize("fault", WRONG_TYPES)
def test_wrong_mask_is_refused(batch: dict[str, Any], fault: str) -> None:
    require_prefix_lm_mask(batch)
    with pytest.raises(ValueError, match="token_type_ids"):
        require_prefix_lm_mask(batch | {"token_type_ids": WRONG_TYPES[fault](batch)})


def test_row_without_suffix_is_refused(batch: dict[str, Any]) -> None:
    batch["token_type_ids"][1], batch["labels"][1] = 0, IGNORED
    with pytest.raises(ValueError, match="token_type_ids"):
        require_prefix_lm_mask(batch)


def test_prompt_has_one_bos_and_ends_its_line(processor: Any, pictures: list[bytes]) -> None:
    ids = prompt_inputs(processor, pictures[:1], PROMPT)["input_ids"][0].tolist()
    tokenizer = processor.tokenizer
    images = [processor.image_token_id] * 4
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
def test_tokens_equal_the_processors(
    checkpoint: Path, processor: Any, pictures: list[bytes], prompts: list[str], suffixes: list[str]
) -> None:
    plain: Any = PaliGemmaProcessor.from_pretrained(checkpoint)
    plain.tokenizer.padding_side = "right"
    images = [decode_image(picture) for picture, _ in zip(pictures, prompts, strict=False)]
    texts = [f"<image>{prompt}" for prompt in prompts]
    expected = plain(images=images, text=texts, suffix=suffixes, padding="longest", return_tensors="pt")
    tokens = encode_texts(processor, prompts, suffixes)
    rows = zip(pictures, prompts, suffixes, strict=False)
    collated = Collator(processor)(
        [{"image": image, "prompt": prompt, "caption": text} for image, prompt, text in rows]
    )
    assert tokens.keys() | {"pixel_values"} == expected.keys() == collated.keys()
    assert all(torch.equal(value, expected[key]) for key, value in tokens.items())
    assert all(torch.equal(value, expected[key]) for key, value in collated.items())


@pytest.mark.parametrize("mode", ["P", "L", "RGBA", "LA", "CMYK", "1", "RGB"])
def test_image_of_any_mode_becomes_rgb(mode: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (5, 3), (255, 255, 255)).convert(mode).save(file, "JPEG" if mode == "CMYK" else "PNG")
    image = decode_image(file.getvalue())
    assert (image.mode, image.size) == ("RGB", (5, 3))
    assert image.getpixel((4, 2)) == (255, 255, 255)
