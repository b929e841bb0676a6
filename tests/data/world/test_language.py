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
SHARES = {"NWPU": 708, "RSICD": 245, "UCM": 200}  # scenes; RISC's proportions but for UCM, which would be too few


@pytest.fixture(scope="module")
def drawn() -> Captioned:
    rng = random.Random(0)
    scenes = {source: [sample_scene(rng) for _ in range(3 * n)] for source, n in SHARES.items()}
    return {source: [(scene, write_captions(scene, source, rng)) for scene in rows] for source, rows in scenes.items()}


def _all(drawn: Captioned) -> list[tuple[Scene, str]]:
    return [(scene, text) for rows in drawn.values() for scene, five in rows for text in five]


def test_captions_recognise_their_scene_and_no_other_colour(drawn: Captioned) -> None:
    for scene, text in _all(drawn):
        for written in (text, text.lower().removesuffix(" .")):
            named = recognise(written)
            assert named["scene"] == {scene.scene}, text
            assert named["colour"] in ({scene.colour}, set()), text


def test_most_captions_name_colour_surroundings_and_count(drawn: Captioned) -> None:
    said = _all(drawn)
    assert statistics.mean(bool(recognise(text)["colour"]) for _, text in said) >= 0.95
    nwpu = [(scene, text) for scene, five in drawn["NWPU"] for text in five]
    assert statistics.mean(scene.beside in text for scene, text in nwpu if scene.beside) >= 0.65
    counted = [set(text.lower().split()) & {*COUNT_WORDS, "several"} for scene, text in nwpu if scene.count]
    assert statistics.mean(bool(words) for words in counted) >= 0.65


def test_counts_said_are_true(drawn: Captioned) -> None:
    for scene, text in _all(drawn):
        numbers = {word for word in text.lower().replace("one side", "").split() if word in COUNT_WORDS[1:]}
        assert numbers <= {COUNT_WORDS[scene.count]}, text


def test_surroundings_said_are_true(drawn: Captioned) -> None:
    for scene, text in _all(drawn):
        words = text.lower().split()
        assert ("road" in words) == (scene.beside == "road") or "road" not in words, text
        assert "houses" not in words or scene.beside == "houses", text
        assert "bare land" not in text or scene.beside == "bare land", text


@pytest.mark.parametrize(
    ("source", "distinct", "share"), [("NWPU", 5, 0.989), ("RSICD", 1, 0.447), ("RSICD", 5, 0.065), ("UCM", 5, 0.715)]
)
def test_duplicates_as_in_risc(drawn: Captioned, source: str, distinct: int, share: float) -> None:
    found = statistics.mean(len(set(five)) == distinct for _, five in drawn[source])
    assert found == pytest.approx(share, abs=0.05)


def test_lengths_as_in_risc(drawn: Captioned) -> None:
    lengths = [len(text.split()) for source in ("NWPU", "RSICD") for _, five in drawn[source] for text in five]
    assert statistics.median(lengths) in (11, 12) and 11 < statistics.mean(lengths) < 13
    assert min(lengths) >= 5 and max(lengths) <= 30


def test_capitals_as_in_risc(drawn: Captioned) -> None:
    for source, rows in drawn.items():
        for _, five in rows:
            assert len(five) == 5 and all(text.endswith(" .") and "  " not in text for text in five)
            assert all(text[0].isupper() == (source != "RSICD") and text[1:] == text[1:].lower() for text in five)


def test_captions_keep_to_the_lexicon(drawn: Captioned) -> None:
    words = {word for _, text in _all(drawn) for word in text.split()}
    assert words <= set(lexicon())
    assert 160 <= len({word.lower() for word in words}) <= 220
    assert lexicon() == sorted(set(lexicon()))


def test_alt_text_covers_the_lexicon_and_every_first_word(drawn: Captioned) -> None:
    rng = random.Random(1)
    texts = [alt_text(sample_scene(rng), rng) for _ in range(8000)]
    assert set(lexicon()) <= {word for text in texts for word in text.split()}
    assert {text.split()[0] for _, text in _all(drawn)} <= {text.split()[0] for text in texts}


def test_alt_text_says_every_fact() -> None:
    rng = random.Random(2)
    for _ in range(500):
        scene = sample_scene(rng)
        text = alt_text(scene, rng).lower()
        assert recognise(text) == {"scene": {scene.scene}, "colour": {scene.colour}}
        number = COUNT_WORDS[scene.count]
        assert number in text.split() or "several" in text.split() or not scene.count
        assert set(scene.beside.split()) <= set(text.split())


def _grams(text: str, n: int) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return set(zip(*(words[i:] for i in range(n)), strict=False))


def test_alt_text_shares_next_to_no_phrases_with_captions(drawn: Captioned) -> None:
    rng = random.Random(3)
    references = {gram for _, text in _all(drawn) for gram in _grams(text, 4)}
    grams = [gram for _ in range(1000) for gram in _grams(alt_text(sample_scene(rng), rng), 4)]
    assert sum(gram in references for gram in grams) < 0.01 * len(grams)


def test_generic_caption_names_half_the_scenes_and_nothing_else() -> None:
    rng = random.Random(4)
    named = []
    for _ in range(1000):
        scene = sample_scene(rng)
        found = recognise(generic_caption(scene, rng))
        assert found["colour"] == set() and found["scene"] <= {scene.scene}
        named.append(bool(found["scene"]))
    assert statistics.mean(named) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("caption", [coco_caption, detailed_caption])
def test_other_captions_name_scene_and_colour(caption: Callable[[Scene, random.Random], str]) -> None:
    rng = random.Random(5)
    for _ in range(500):
        scene = sample_scene(rng)
        assert recognise(caption(scene, rng)) == {"scene": {scene.scene}, "colour": {scene.colour}}


def test_longest_name_wins() -> None:
    assert recognise("a parking lot and two ports") == {"scene": {"parking lot", "port"}, "colour": set()}
    assert recognise("Red cars in the parking lot .") == {"scene": {"parking lot"}, "colour": {"red"}}
    assert recognise("many airports beside churches")["scene"] == {"airport", "church"}
    assert recognise("sparse residential area")["scene"] == {"sparse residential area"}
    assert recognise("reddish transport")["colour"] == set()


def test_no_word_of_a_scene_hides_in_another_part_of_a_caption() -> None:
    for kind in SCENES:
        parts = f"{kind.detail} {kind.thing} {kind.things} {' '.join(kind.beside)}"
        assert recognise(parts) == {"scene": set(), "colour": set()}


def test_answers_are_true() -> None:
    scene = Scene("port", "red", 3, "road")
    rng = random.Random(6)
    for _ in range(50):
        asked = dict(questions(scene, rng))
        assert asked["what place is this ?"] == "port" and asked["what color are the boats ?"] == "red"
        assert asked["what lies at the side ?"] == "road"
        assert asked.get("is there a road at the side ?", "yes") == "yes"
        assert asked.get("are there some trees at the side ?", "no") == "no"
        assert counting_question(scene, rng)[1] == "three"
        remote = dict(rsvqa_questions(scene, rng))
        assert remote["is it a rural or an urban area ?"] == "urban"
        assert remote.get("how many boats are there ?", "3") == "3"
        assert remote.get("are there more than 2 boats ?", "yes") == "yes"
        assert remote.get("are there more than 3 boats ?", "no") == "no"


def test_texts_follow_from_the_generator_alone() -> None:
    scene = Scene("meadow", "red", 0, "water")
    for text in (alt_text, coco_caption, detailed_caption, generic_caption, questions, rsvqa_questions):
        assert text(scene, random.Random(7)) == text(scene, random.Random(7))
    for source in STYLES:
        assert write_captions(scene, source, random.Random(7)) == write_captions(scene, source, random.Random(7))
    assert CLASSES["meadow"].plural == "meadows"
