"""CIDEr-D is pycocoevalcap's to 1e-9; `<eos>` punishes captions that stop early."""

import csv
import json
import math
import os
import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from captioning.metrics.cider import EOS, CiderD, DocumentFrequencies, ngrams
from captioning.metrics.ptb import tokenize

WORDS = [
    "many", "green", "trees", "are", "near", "a", "large", "building", "with", "white", "roof", "in", "the", "port",
    "some", "planes", "next", "to", "runway",
]  # fmt: skip


def _captions(rng: random.Random, number: int) -> list[str]:
    weights = [1 / place for place in range(1, len(WORDS) + 1)]
    return [" ".join(rng.choices(WORDS, weights, k=rng.randint(0, 16))) for _ in range(number)]


def _world(images: int = 120) -> tuple[dict[str, list[str]], dict[str, str]]:
    rng = random.Random(3)
    references = {f"i{place}": _captions(rng, rng.randint(1, 5)) for place in range(images)}
    hypotheses = {id_: rng.choice([of[0], *_captions(rng, 1)]) for id_, of in references.items()}
    return references, hypotheses


def test_equals_pycocoevalcap() -> None:
    references, hypotheses = _world()
    mean, theirs = Cider().compute_score(references, {id_: [text] for id_, text in hypotheses.items()})
    scorer = CiderD(DocumentFrequencies.from_references(references.values()), references, eos=False)
    ours = scorer.scores(list(hypotheses), list(hypotheses.values()))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    assert ours.mean() == pytest.approx(mean, abs=1e-9)
    assert ours.max() > 5


captions = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=9).map(" ".join)


@settings(deadline=None)
@given(st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=5)), min_size=1, max_size=6))
def test_equals_pycocoevalcap_on_any_small_corpus(images: list[tuple[str, list[str]]]) -> None:
    """Four words: n-grams repeat, hypotheses are clipped, references are equal, captions are empty."""
    references = {str(place): of for place, (_, of) in enumerate(images)}
    assume(any(map(any, references.values())))  # pycocoevalcap fails where no reference holds a word
    _, theirs = Cider().compute_score(references, {str(place): [said] for place, (said, _) in enumerate(images)})
    scorer = CiderD(DocumentFrequencies.from_references(references.values()), references)
    ours = scorer.scores(list(references), [said for said, _ in images])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(scorer.scores(list(references), [said for said, _ in images]), ours)


@pytest.mark.skipif("RISC_TRAIN_CAPTIONS" not in os.environ, reason="RISC_TRAIN_CAPTIONS names no captions.csv")
@pytest.mark.parametrize("whose", ["its own", "another image's"])
def test_equals_pycocoevalcap_on_real_captions(whose: str) -> None:
    """`caption_1`, its own or another image's, against the other four of each image."""
    with open(os.environ["RISC_TRAIN_CAPTIONS"], encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    first, *rest = (tokenize([row[f"caption_{place}"] for row in rows]) for place in range(1, 6))
    if whose == "another image's":
        random.Random(1).shuffle(first)
    references = {row["image"]: list(of) for row, of in zip(rows, zip(*rest, strict=True), strict=True)}
    _, theirs = Cider().compute_score(references, {id_: [said] for id_, said in zip(references, first, strict=True)})
    scorer = CiderD(DocumentFrequencies.from_references(references.values()), references)
    ours = scorer.scores(list(references), first)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)
    assert (ours.mean() > 1) == (whose == "its own")


def test_by_hand_on_two_images() -> None:
    frequencies = DocumentFrequencies.from_references([["a b"], ["a c"]])
    scorer = CiderD(frequencies, {"x": ["a b"]})
    # idf: a 0, b and "a b" ln 2. Unigrams and the bigram agree fully, there is no longer n-gram: 10 * 2 / 4.
    assert scorer.score("x", "a b") == pytest.approx(5.0)
    # "b" against "a b": the unigram vectors agree, no bigram; lengths 0 and 1 bigrams.
    assert scorer.score("x", "b") == pytest.approx(10 / 4 * math.exp(-1 / 72))


def test_a_repeated_word_is_clipped_by_hand() -> None:
    frequencies = DocumentFrequencies.from_references([["a b"], ["c"]])
    # Unigrams: "a a a" is (3, 0), "a b" (1, 1) times ln 2: clipped 1 * 1, norms 3 and sqrt 2. Two bigrams against one.
    expected = 10 / 4 * math.exp(-1 / 72) / (3 * math.sqrt(2))
    assert CiderD(frequencies, {"x": ["a b"]}).score("x", "a a a") == pytest.approx(expected)


def test_equal_references_count_as_often_as_they_stand() -> None:
    frequencies = DocumentFrequencies.from_references([["a b"], ["c d"], ["e"]])
    scorer = CiderD(frequencies, {"x": ["a b", "c d", "a b", "a b"], "y": ["a b"], "z": ["c d"]})
    parts = 3 * scorer.score("y", "a b c") + scorer.score("z", "a b c")
    assert scorer.score("x", "a b c") == pytest.approx(parts / 4)


def test_an_image_without_a_reference_is_told() -> None:
    scorer = CiderD(DocumentFrequencies.from_references([["a b"]]), {"x": []})
    with pytest.raises(ValueError, match="'x' has no reference"):
        scorer.score("x", "a b")


def test_frequencies_count_an_image_once() -> None:
    frequencies = DocumentFrequencies.from_references([["a a", "a b"], ["b"]])
    assert frequencies == DocumentFrequencies(2, {"a": 1, "a a": 1, "a b": 1, "b": 2})


def test_json_round_trip_keeps_the_scores() -> None:
    references, _ = _world(20)
    frequencies = DocumentFrequencies.from_references(references.values(), eos=True)
    again = DocumentFrequencies.from_json(json.loads(json.dumps(frequencies.to_json())))
    assert again == frequencies
    assert again.ngrams[EOS] == 20


def test_eos_is_earned_by_ending() -> None:
    references, _ = _world(20)
    references["x"] = ["many boats are in a port"]
    scorer = CiderD(DocumentFrequencies.from_references(references.values(), eos=True), references, eos=True)
    whole = scorer.score("x", "many boats are in a port", ended=True)
    assert whole > scorer.score("x", "many boats are in a port", ended=False)
    assert whole == pytest.approx(10.0)


def test_eos_equals_pycocoevalcap_on_marked_strings() -> None:
    references, hypotheses = _world(40)
    marked = {id_: [f"{text} {EOS}" for text in of] for id_, of in references.items()}
    _, theirs = Cider().compute_score(marked, {id_: [f"{text} {EOS}"] for id_, text in hypotheses.items()})
    scorer = CiderD(DocumentFrequencies.from_references(references.values(), eos=True), references, eos=True)
    ours = scorer.scores(list(hypotheses), list(hypotheses.values()), [True] * len(hypotheses))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


def test_eos_wants_frequencies_that_counted_it() -> None:
    with pytest.raises(ValueError, match="eos=True"):
        CiderD(DocumentFrequencies.from_references([["a b"]]), {"x": ["a b"]}, eos=True)


def test_nothing_said_scores_nothing() -> None:
    scorer = CiderD(DocumentFrequencies.from_references([["a b"], ["c"]]), {"x": ["a b"]})
    assert scorer.score("x", "") == 0.0


def test_ngrams_by_hand() -> None:
    assert ngrams("a b a") == {"a": 2, "b": 1, "a b": 1, "b a": 1, "a b a": 1}
