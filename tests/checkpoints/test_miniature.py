"""The miniature consists of PaliGemma's own classes; its tokenizer loses no text; its curricula follow their seeds."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GemmaTokenizer, PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from captioning.checkpoints.miniature import (
    CURRICULA,
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
    return train_tokenizer(Counter(["alpha", *lexicon()]))


def sample_scenes(count: int) -> list[Scene]:
    rng = random.Random(0)
    return [sample_scene(rng) for _ in range(count)]


def round_trip(tokenizer: GemmaTokenizer, text: str) -> str:
    return tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), clean_up_tokenization_spaces=False)


def test_captions_and_examples_survive_tokens(tokenizer: GemmaTokenizer) -> None:
    rng = random.Random(1)
    for scene in sample_scenes(150):
        texts = [text for source in ("NWPU", "RSICD", "UCM") for text in write_captions(scene, source, rng)]
        texts += [text for make_example in CURRICULA.values() for text in make_example(scene, ["alpha"], rng)]
        for text in [*texts, tag_text(scene)]:
            assert round_trip(tokenizer, text) == text


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁<")))
def test_any_text_survives_tokens(tokenizer: GemmaTokenizer, text: str) -> None:
    """Except `▁`, which is Gemma's space, and the names of special tokens."""
    assert round_trip(tokenizer, text) == text


def test_words_are_single_tokens_within_spaces(tokenizer: GemmaTokenizer) -> None:
    for word in ["alpha", *lexicon()]:
        assert len(tokenizer.encode(f" {word}", add_special_tokens=False)) == 1, word
    assert [token for token in tokenizer.get_vocab() if "▁" in token[1:] or " " in token] == []


def test_vocabulary_does_not_depend_on_the_order_of_words(tokenizer: GemmaTokenizer) -> None:
    assert train_tokenizer(dict(reversed(Counter(["alpha", *lexicon()]).items()))).get_vocab() == tokenizer.get_vocab()


def test_special_tokens_are_paligemmas() -> None:
    tokenizer = train_tokenizer(Counter(["alpha", *lexicon()]))
    words = len(tokenizer)
    assert tokenizer.convert_tokens_to_ids(["<pad>", "<eos>", "<bos>", "<unk>"]) == [0, 1, 2, 3]
    assert len(tokenizer.encode("\n", add_special_tokens=False)) == 1
    processor = make_processor(tokenizer, 48)
    vocabulary, config = processor.tokenizer.get_vocab(), make_config(processor, 48)
    assert {"<image>", "<loc0000>", "<loc1023>", "<seg000>", "<seg127>"} <= vocabulary.keys()
    assert config.text_config.vocab_size == len(vocabulary) == words + 1 + 1024 + 128
    assert config.image_token_id == vocabulary["<image>"]
    assert processor.image_seq_length == 16


@BOTH
def test_plain_library_captions_with_a_checkpoint(
    checkpoint: Path, pictures: list[bytes], captions: list[list[str]]
) -> None:
    assert {path.suffix for path in checkpoint.iterdir()} <= {".json", ".safetensors", ".jinja"}
    model = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint).eval()
    processor = PaliGemmaProcessor.from_pretrained(checkpoint)
    inputs = processor(images=decode_image(pictures[0]), text="<image>caption en", return_tensors="pt")
    suffix = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert processor.decode(suffix, skip_special_tokens=True) == captions[0][0]
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert model.dtype == torch.float32


PROMPTS = {
    "base": {"caption", "spell", "tag", "alt"},
    "mix": {"caption", "describe", "answer"},
    "cococap": {"caption"},
    "rsvqa-lr": {"answer"},
}


@pytest.mark.parametrize("name", PROMPTS)
def test_curriculum_follows_its_seed(name: str) -> None:
    make_example: Callable[..., tuple[str, str]] = CURRICULA[name]

    def examples(seed: int) -> list[tuple[str, str]]:
        rng = random.Random(seed)
        return [make_example(scene, ["alpha", "beta"], rng) for scene in sample_scenes(200)]

    assert examples(1) == examples(1) != examples(2)
    assert all(prompt and suffix and "\n" not in prompt for prompt, suffix in examples(1))
    assert {prompt.split(" en")[0] for prompt, _ in examples(1)} == PROMPTS[name]


def test_base_spells_words_and_never_names_a_colour_in_a_caption() -> None:
    rng = random.Random(0)
    examples = [CURRICULA["base"](scene, ["alpha"], rng) for scene in sample_scenes(3000)]
    words = {word for prompt, suffix in examples if prompt == "caption en" for word in suffix.lower().split()}
    assert len(words) > 10
    assert not words & COLOURS.keys()
    assert any(suffix == "alpha" for prompt, suffix in examples if prompt == "spell en")
    assert not any(CURRICULA["base"](scene, [], rng)[0] == "spell en" for scene in sample_scenes(200))


def test_tags_by_hand() -> None:
    assert tag_text(Scene("port", "red", 3, "trees")) == "port , red , boats , 3 , trees"
    assert tag_text(Scene("river", "blue", 0, "")) == "river , blue , water , 0 , nothing"
