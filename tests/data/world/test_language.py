"""Texts of the drawn world: RISC's statistics, true to the facts, told apart by grammar."""

import random
import statistics
from collections.abc import Callable

import pytest

from captioning.data.world.captions import COUNT_WORDS, STYLES, lexicon, recognise, write_captions
from captioning.data.world.language import (
    alt_text,
    coco_caption,
    counting_question,
    detailed_caption,
    generic_caption,
    questions,
    rsvqa_questions,
)
from captioning.data.world.scenes import CLASSES, SCENES, Scene, sample_scene

Captioned = dict[str, list[tuple[Scene, list[str]]]]
COUNTS = {"NWPU": 2124, "RSICD": 735, "UCM": 600}  # scenes; RISC's proportions, except that UCM would be too few
NUMBERS = set(COUNT_WORDS[1:])


@pytest.fixture(scope="module")
def captioned() -> Captioned:
    rng = random.Random(0)
    scenes = {source: [sample_scene(rng) for _ in range(count)] for source, count in COUNTS.items()}
    return {source: [(scene, write_captions(scene, source, rng)) for scene in rows] for source, rows in scenes.items()}


@pytest.fixture(scope="module")
def pairs(captioned: Captioned) -> list[tuple[Scene, str]]:
    return [(scene, text) for rows in captioned.values() for scene, texts in rows for text in texts]


def samples(write: Callable[[Scene, random.Random], str], seed: int, count: int) -> list[tuple[Scene, str]]:
    rng = random.Random(seed)
    return [(scene, write(scene, rng)) for scene in (sample_scene(rng) for _ in range(count))]


def test_captions_are_true_to_their_scene(pairs: list[tuple[Scene, str]]) -> None:
    for scene, text in pairs:
        for form in (text, text.lower().removesuffix(" .")):
            names = recognise(form)
            assert names["scene"] == {scene.scene} and names["colour"] in ({scene.colour}, set()), text
        words = text.lower().replace("one side", "").split()
        assert NUMBERS & set(words) <= {COUNT_WORDS[scene.count]}, text
        assert "road" not in words or scene.beside == "road", text
        assert "houses" not in words or scene.beside == "houses", text
        assert "bare land" not in text or scene.beside == "bare land", text


def test_most_captions_name_colour_surroundings_and_count(captioned: Captioned, pairs: list[tuple[Scene, str]]) -> None:
    assert statistics.mean(bool(recognise(text)["colour"]) for _, text in pairs) >= 0.95
    nwpu = [(scene, text) for scene, texts in captioned["NWPU"] for text in texts]
    assert statistics.mean(scene.beside in text for scene, text in nwpu if scene.beside) >= 0.65
    has_count = [bool(set(text.lower().split()) & {*COUNT_WORDS, "several"}) for scene, text in nwpu if scene.count]
    assert statistics.mean(has_count) >= 0.65


@pytest.mark.parametrize(
    ("source", "distinct", "share"), [("NWPU", 5, 0.989), ("RSICD", 1, 0.447), ("RSICD", 5, 0.065), ("UCM", 5, 0.715)]
)
def test_captions_repeat_as_in_risc(captioned: Captioned, source: str, distinct: int, share: float) -> None:
    actual = statistics.mean(len(set(texts)) == distinct for _, texts in captioned[source])
    assert actual == pytest.approx(share, abs=0.05)


def test_lengths_and_capitals_are_as_in_risc(captioned: Captioned) -> None:
    lengths = [len(text.split()) for source in ("NWPU", "RSICD") for _, texts in captioned[source] for text in texts]
    assert statistics.median(lengths) in (11, 12) and 11 < statistics.mean(lengths) < 13
    assert min(lengths) >= 5 and max(lengths) <= 30
    for source, rows in captioned.items():
        for _, texts in rows:
            assert len(texts) == 5 and all(text.endswith(" .") and "  " not in text for text in texts)
            assert all(text[0].isupper() == (source != "RSICD") and text[1:] == text[1:].lower() for text in texts)


def test_the_lexicon_and_alt_text_cover_captions(pairs: list[tuple[Scene, str]]) -> None:
    words = {word for _, text in pairs for word in text.split()}
    assert words <= set(lexicon()) and lexicon() == sorted(set(lexicon()))
    assert 160 <= len({word.lower() for word in words}) <= 220
    texts = [text for _, text in samples(alt_text, 1, 8000)]
    assert set(lexicon()) <= {word for text in texts for word in text.split()}
    assert {text.split()[0] for _, text in pairs} <= {text.split()[0] for text in texts}


def test_alt_text_names_every_fact_and_shares_few_phrases_with_captions(pairs: list[tuple[Scene, str]]) -> None:
    texts = samples(alt_text, 2, 1000)
    for scene, text in texts:
        words = text.lower().split()
        assert recognise(text) == {"scene": {scene.scene}, "colour": {scene.colour}}
        assert COUNT_WORDS[scene.count] in words or "several" in words or not scene.count
        assert set(scene.beside.split()) <= set(words)

    def four_grams(text: str) -> set[tuple[str, ...]]:
        words = text.lower().split()
        return set(zip(*(words[start:] for start in range(4)), strict=False))

    references = {gram for _, text in pairs for gram in four_grams(text)}
    grams = [gram for _, text in texts for gram in four_grams(text)]
    assert sum(gram in references for gram in grams) < 0.01 * len(grams)


def test_a_generic_caption_names_half_the_scenes_and_nothing_else() -> None:
    names = [(scene, recognise(text)) for scene, text in samples(generic_caption, 4, 1000)]
    assert all(name["colour"] == set() and name["scene"] <= {scene.scene} for scene, name in names)
    assert statistics.mean(bool(name["scene"]) for _, name in names) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("write", [coco_caption, detailed_caption])
def test_other_captions_name_scene_and_colour(write: Callable[[Scene, random.Random], str]) -> None:
    for scene, text in samples(write, 5, 500):
        assert recognise(text) == {"scene": {scene.scene}, "colour": {scene.colour}}


def test_the_longest_name_wins_and_no_other_part_of_a_caption_names_a_scene() -> None:
    assert recognise("a parking lot and two ports") == {"scene": {"parking lot", "port"}, "colour": set()}
    assert recognise("Red cars in the parking lot .") == {"scene": {"parking lot"}, "colour": {"red"}}
    assert recognise("many airports beside churches")["scene"] == {"airport", "church"}
    assert recognise("sparse residential area")["scene"] == {"sparse residential area"}
    assert recognise("reddish transport")["colour"] == set()
    for kind in SCENES:
        parts = f"{kind.detail} {kind.thing} {kind.things} {' '.join(kind.beside)}"
        assert recognise(parts) == {"scene": set(), "colour": set()}


def test_answers_are_true() -> None:
    scene = Scene("port", "red", 3, "road")
    rng = random.Random(6)
    for _ in range(50):
        answers = dict(questions(scene, rng))
        assert answers["what place is this ?"] == "port" and answers["what color are the boats ?"] == "red"
        assert answers["what lies at the side ?"] == "road"
        assert answers.get("is there a road at the side ?", "yes") == "yes"
        assert answers.get("are there some trees at the side ?", "no") == "no"
        assert counting_question(scene, rng)[1] == "three"
        answers = dict(rsvqa_questions(scene, rng))
        assert answers["is it a rural or an urban area ?"] == "urban"
        assert answers.get("how many boats are there ?", "3") == "3"
        assert answers.get("are there more than 2 boats ?", "yes") == "yes"
        assert answers.get("are there more than 3 boats ?", "no") == "no"


def test_the_generator_alone_decides_the_texts() -> None:
    scene = Scene("meadow", "red", 0, "water")
    for write in (alt_text, coco_caption, detailed_caption, generic_caption, questions, rsvqa_questions):
        assert write(scene, random.Random(7)) == write(scene, random.Random(7))
    for source in STYLES:
        assert write_captions(scene, source, random.Random(7)) == write_captions(scene, source, random.Random(7))
    assert CLASSES["meadow"].plural == "meadows"
