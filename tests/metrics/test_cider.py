"""CIDEr-D equals pycocoevalcap's to 1e-9; `<eos>` punishes captions that stop early."""

import csv
import json
import math
import os
import random
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycocoevalcap.cider.cider import Cider

from captioning.metrics.cider import EOS, CiderD, DocumentFrequencies, count_ngrams
from captioning.metrics.ptb import tokenize

TEXT = "many green trees are near a large building with white roof in the port some planes next to runway"
WORDS = TEXT.split()
CORPUS = DocumentFrequencies.from_references([["a b"], ["c"]])


def _captions(rng: random.Random, number: int) -> list[str]:
    weights = [1 / rank for rank in range(1, len(WORDS) + 1)]
    return [" ".join(rng.choices(WORDS, weights, k=rng.randint(0, 16))) for _ in range(number)]


def _corpus(images: int = 120) -> tuple[dict[str, list[str]], dict[str, str]]:
    rng = random.Random(3)
    references = {f"i{number}": _captions(rng, rng.randint(1, 20)) for number in range(images)}
    hypotheses = {id_: rng.choice([captions[0], *_captions(rng, 1)]) for id_, captions in references.items()}
    return references, hypotheses


def _assert_equal_scores(references: dict[str, list[str]], hypotheses: dict[str, str]) -> np.ndarray:
    """Return our scores, which must be pycocoevalcap's, at first use and from the index."""
    _, expected = Cider().compute_score(references, {id_: [text] for id_, text in hypotheses.items()})
    scorer = CiderD(DocumentFrequencies.from_references(references.values()), references)
    for _ in range(2):
        scores = scorer.scores(list(hypotheses), list(hypotheses.values()))
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-9)
    return scores


def test_equals_pycocoevalcap() -> None:
    assert _assert_equal_scores(*_corpus()).max() > 5


captions = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=9).map(" ".join)


@settings(deadline=None)
@given(st.lists(st.tuples(captions, st.lists(captions, min_size=1, max_size=5)), min_size=1, max_size=6))
def test_equals_pycocoevalcap_on_any_small_corpus(images: list[tuple[str, list[str]]]) -> None:
    """Four words: n-grams repeat, hypotheses are clipped, references are equal, captions are empty."""
    references = {str(number): texts for number, (_, texts) in enumerate(images)}
    assume(any(map(any, references.values())))  # pycocoevalcap fails if no reference has a word
    _assert_equal_scores(references, {str(number): hypothesis for number, (hypothesis, _) in enumerate(images)})


@pytest.mark.skipif("RISC_TRAIN_CAPTIONS" not in os.environ, reason="RISC_TRAIN_CAPTIONS names no captions.csv")
@pytest.mark.parametrize("shuffled", [False, True])
def test_equals_pycocoevalcap_on_real_captions(shuffled: bool) -> None:
    """`caption_1`, of the image or of another image, against the other four."""
    with open(os.environ["RISC_TRAIN_CAPTIONS"], encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    first, *others = (tokenize([row[f"caption_{number}"] for row in rows]) for number in range(1, 6))
    if shuffled:
        random.Random(1).shuffle(first)
    references = {row["image"]: list(texts) for row, texts in zip(rows, zip(*others, strict=True), strict=True)}
    scores = _assert_equal_scores(references, dict(zip(references, first, strict=True)))
    assert (scores.mean() > 1) != shuffled


def test_eos_equals_pycocoevalcap_on_marked_captions() -> None:
    references, hypotheses = _corpus(40)
    marked = {id_: [f"{text} {EOS}" for text in texts] for id_, texts in references.items()}
    _, expected = Cider().compute_score(marked, {id_: [f"{text} {EOS}"] for id_, text in hypotheses.items()})
    scorer = CiderD(DocumentFrequencies.from_references(references.values(), eos=True), references, eos=True)
    scores = scorer.scores(list(hypotheses), list(hypotheses.values()), [True] * len(hypotheses))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-9)


def test_a_caption_that_does_not_end_scores_less() -> None:
    references = _corpus(20)[0] | {"x": ["many boats are in a port"]}
    scorer = CiderD(DocumentFrequencies.from_references(references.values(), eos=True), references, eos=True)
    ended = scorer.score("x", "many boats are in a port", ended=True)
    assert ended == pytest.approx(10.0)
    assert ended > scorer.score("x", "many boats are in a port", ended=False)


def test_scores_by_hand() -> None:
    scorer = CiderD(DocumentFrequencies.from_references([["a b"], ["a c"]]), {"x": ["a b"]})
    # idf: a 0, b and "a b" ln 2. Unigrams and the bigram agree fully, there is no longer n-gram: 10 * 2 / 4.
    assert scorer.score("x", "a b") == pytest.approx(5.0)
    # "b" against "a b": the unigram vectors agree, no bigram; lengths 0 and 1 bigrams.
    assert scorer.score("x", "b") == pytest.approx(10 / 4 * math.exp(-1 / 72))
    assert scorer.score("x", "") == 0.0
    # Unigrams: "a a a" is (3, 0), "a b" (1, 1) times ln 2: clipped 1 * 1, norms 3 and sqrt 2. Two bigrams against one.
    clipped = CiderD(CORPUS, {"x": ["a b"]}).score("x", "a a a")
    assert clipped == pytest.approx(10 / 4 * math.exp(-1 / 72) / (3 * math.sqrt(2)))


def test_equal_references_each_count() -> None:
    frequencies = DocumentFrequencies.from_references([["a b"], ["c d"], ["e"]])
    scorer = CiderD(frequencies, {"x": ["a b", "c d", "a b", "a b"], "y": ["a b"], "z": ["c d"]})
    parts = 3 * scorer.score("y", "a b c") + scorer.score("z", "a b c")
    assert scorer.score("x", "a b c") == pytest.approx(parts / 4)


def test_missing_references_and_uncounted_eos_are_refused() -> None:
    with pytest.raises(ValueError, match="'x' has no reference"):
        CiderD(CORPUS, {"x": []}).score("x", "a b")
    with pytest.raises(ValueError, match="eos=True"):
        CiderD(CORPUS, {"x": ["a b"]}, eos=True)


def test_frequencies_count_each_image_once_and_survive_json() -> None:
    frequencies = DocumentFrequencies.from_references([["a a", "a b"], ["b"]])
    assert frequencies == DocumentFrequencies(2, {"a": 1, "a a": 1, "a b": 1, "b": 2})
    assert DocumentFrequencies(**json.loads(json.dumps(asdict(frequencies)))) == frequencies
    assert count_ngrams("a b a") == {"a": 2, "b": 1, "a b": 1, "b a": 1, "a b a": 1}
