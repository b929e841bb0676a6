"""The miniature is PaliGemma's own classes; its tokenizer loses no text; its curricula are their seeds'."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GemmaTokenizer, PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from captioning.checkpoints.miniature import (
    CURRICULA,
    PATCH,
    load_checkpoint,
    make_config,
    make_processor,
    tag_text,
    train_tokenizer,
)
from captioning.data.world.captions import lexicon, write_captions
from captioning.data.world.scenes import COLOURS, Scene, sample_scene
from captioning.paligemma.model import decode_image
from tests.helpers.decoders import BOTH


@pytest.fixture(scope="module")
def tokenizer() -> GemmaTokenizer:
    return train_tokenizer(["alpha", *lexicon()])


def scenes(number: int) -> list[Scene]:
    rng = random.Random(0)
    return [sample_scene(rng) for _ in range(number)]


def round_trip(tokenizer: GemmaTokenizer, text: str) -> str:
    return tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), clean_up_tokenization_spaces=False)


def test_captions_and_lessons_come_back(tokenizer: GemmaTokenizer) -> None:
    rng = random.Random(1)
    for scene in scenes(150):
        texts = [text for source in ("NWPU", "RSICD", "UCM") for text in write_captions(scene, source, rng)]
        texts += [tag_text(scene)]
        texts += [text for lesson in CURRICULA.values() for text in lesson(scene, ["alpha"], rng)]
        for text in texts:
            assert round_trip(tokenizer, text) == text


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁<")))
def test_any_text_comes_back(tokenizer: GemmaTokenizer, text: str) -> None:
    """By bytes; but for `▁`, which is Gemma's space, and the names of special tokens."""
    assert round_trip(tokenizer, text) == text


def test_a_word_is_one_piece_after_a_space(tokenizer: GemmaTokenizer) -> None:
    for word in ["alpha", *lexicon()]:
        assert len(tokenizer.encode(f" {word}", add_special_tokens=False)) == 1, word


def test_no_piece_crosses_a_space(tokenizer: GemmaTokenizer) -> None:
    assert [piece for piece in tokenizer.get_vocab() if "▁" in piece[1:] or " " in piece] == []


def test_the_vocabulary_is_the_same_every_time(tokenizer: GemmaTokenizer) -> None:
    again = train_tokenizer(reversed(["alpha", *lexicon()]))
    assert again.get_vocab() == tokenizer.get_vocab()


def test_special_tokens_are_gemmas(tokenizer: GemmaTokenizer) -> None:
    assert [tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id] == [
        0,
        1,
        2,
        3,
    ]
    assert len(tokenizer.encode("\n", add_special_tokens=False)) == 1


def test_the_processor_adds_image_locations_and_segments(tokenizer: GemmaTokenizer) -> None:
    pieces = len(train_tokenizer(["alpha", *lexicon()]))
    processor = make_processor(train_tokenizer(["alpha", *lexicon()]), 48)
    vocabulary = processor.tokenizer.get_vocab()
    assert len(vocabulary) == pieces + 1 + 1024 + 128
    assert {"<image>", "<loc0000>", "<loc1023>", "<seg000>", "<seg127>"} <= vocabulary.keys()
    assert processor.image_seq_length == (48 // PATCH) ** 2 == 16
    config = make_config(processor, 48)
    assert config.image_token_id == vocabulary["<image>"]
    assert config.text_config.vocab_size == len(vocabulary)


@BOTH
def test_a_checkpoint_is_the_plain_librarys(checkpoint: Path, pictures: list[bytes], captions: list[list[str]]) -> None:
    """Plain `from_pretrained`, no code of ours, and it says what it was taught."""
    assert {path.suffix for path in checkpoint.iterdir()} <= {".json", ".safetensors", ".jinja"}
    model = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint).eval()
    processor = PaliGemmaProcessor.from_pretrained(checkpoint)
    inputs = processor(images=decode_image(pictures[0]), text="<image>caption en", return_tensors="pt")
    out = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(out, skip_special_tokens=True) == captions[0][0]
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert model.dtype == torch.float32


def test_a_loaded_checkpoint_is_as_saved(checkpoint: Path) -> None:
    model, processor = load_checkpoint(checkpoint)
    plain = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert processor.image_seq_length == 4


@pytest.mark.parametrize("name", ["base", "mix", "cococap", "rsvqa-lr"])
def test_lessons_are_their_seeds(name: str) -> None:
    lesson: Callable[..., tuple[str, str]] = CURRICULA[name]

    def lessons(seed: int) -> list[tuple[str, str]]:
        rng = random.Random(seed)
        return [lesson(scene, ["alpha", "beta"], rng) for scene in scenes(60)]

    assert lessons(1) == lessons(1)
    assert lessons(1) != lessons(2)
    assert all(prompt and suffix and "\n" not in prompt for prompt, suffix in lessons(1))


def test_base_never_names_a_colour_in_a_caption() -> None:
    rng = random.Random(0)
    made = [CURRICULA["base"](scene, ["alpha"], rng) for scene in scenes(3000)]
    said = {word for prompt, suffix in made if prompt == "caption en" for word in suffix.lower().split()}
    assert len(said) > 10
    assert not said & COLOURS.keys()
    assert {prompt for prompt, _ in made} == {"caption en", "spell en", "tag en", "alt en"}
    assert any(suffix == "alpha" for prompt, suffix in made if prompt == "spell en")


def test_base_without_foreign_words_spells_nothing() -> None:
    rng = random.Random(0)
    assert "spell en" not in {CURRICULA["base"](scene, [], rng)[0] for scene in scenes(200)}


def test_tags_by_hand() -> None:
    assert tag_text(Scene("port", "red", 3, "trees")) == "port , red , boats , 3 , trees"
    assert tag_text(Scene("river", "blue", 0, "")) == "river , blue , water , 0 , nothing"


def test_each_namesake_is_taught_its_own_tasks() -> None:
    rng = random.Random(0)
    prompts = {
        name: {lesson(scene, [], rng)[0].split(" en")[0] for scene in scenes(200)} for name, lesson in CURRICULA.items()
    }
    assert prompts["mix"] == {"caption", "describe", "answer"}
    assert prompts["cococap"] == {"caption"}
    assert prompts["rsvqa-lr"] == {"answer"}
