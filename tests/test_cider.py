"""CIDEr-D is pycocoevalcap's to 1e-9; `<eos>` punishes captions that stop early."""

import json
import math
import random

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from captioning.cider import EOS, CiderD, DocumentFrequencies, ngrams

WORDS = [
    "many",
    "green",
    "trees",
    "are",
    "near",
    "a",
    "large",
    "building",
    "with",
    "white",
    "roof",
    "in",
    "the",
    "port",
    "some",
    "planes",
    "next",
    "to",
    "runway",
]


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


def test_by_hand_on_two_images() -> None:
    frequencies = DocumentFrequencies.from_references([["a b"], ["a c"]])
    scorer = CiderD(frequencies, {"x": ["a b"]})
    # idf: a 0, b and "a b" ln 2. Unigrams and the bigram agree fully, there is no longer n-gram: 10 * 2 / 4.
    assert scorer.score("x", "a b") == pytest.approx(5.0)
    # "b" against "a b": the unigram vectors agree, no bigram; lengths 0 and 1 bigrams.
    assert scorer.score("x", "b") == pytest.approx(10 / 4 * math.exp(-1 / 72))


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
