"""Corpus scores agree with hand calculations and our own CIDEr-D; METEOR's process ends; yardsticks are as said."""

import io
import json
import math
import os
import random
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

from captioning.evaluation.scores import (
    METRICS,
    Scorer,
    caption_1,
    constant_caption,
    grounding,
    human_caption,
    image_feature,
    nearest,
    scorer,
    signature,
)
from captioning.metrics.cider import CiderD, DocumentFrequencies

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
]


class NoMeteor:
    """Stands in where METEOR's 6 seconds of loading prove nothing."""

    def compute_score(self, truth: dict[str, list[str]], said: dict[str, list[str]]) -> tuple[float, list[float]]:
        return 0.0, [0.0] * len(truth)


@pytest.fixture(scope="module")
def real():
    with scorer() as one:
        yield one


def _world() -> tuple[dict[str, list[str]], dict[str, str]]:
    rng = random.Random(1)
    references = {f"i{i}": [" ".join(rng.choices(WORDS, k=rng.randint(4, 9))) for _ in range(5)] for i in range(30)}
    return references, {id_: rng.choice([*of, " ".join(rng.choices(WORDS, k=6))]) for id_, of in references.items()}


def test_all_metrics_of_perfect_silent_and_other_captions(real: Scorer) -> None:
    references = {
        "a": ["many boats are in the port"] * 2,
        "b": ["two planes near a runway"] * 2,
        "c": ["a green lake"] * 2,
    }
    perfect = real.score(references, {id_: of[0] for id_, of in references.items()})
    assert perfect.corpus["BLEU-1"] == pytest.approx(100)
    assert perfect.corpus["ROUGE-L"] == pytest.approx(100)
    assert perfect.corpus["METEOR"] > 95
    assert set(perfect.corpus) == set(perfect.by_image) == set(METRICS)
    silent = real.score(references, {"a": "many boats are in the port", "b": "", "c": "a blue lake"})
    assert silent.by_image["METEOR"][1] == 0
    assert 0 < silent.by_image["METEOR"][2] < silent.by_image["METEOR"][0]


def test_cider_equals_ours_and_scores_do_not_depend_on_order() -> None:
    references, hypotheses = _world()
    result = Scorer(NoMeteor()).score(references, hypotheses)
    ours = CiderD(DocumentFrequencies.from_references(references.values()), references)
    expected = 100 * ours.scores(result.ids, [hypotheses[id_] for id_ in result.ids])
    np.testing.assert_allclose(result.by_image["CIDEr"], expected, rtol=0, atol=1e-7)
    assert result.corpus["CIDEr"] == pytest.approx(expected.mean())
    turned = Scorer(NoMeteor()).score(dict(reversed(references.items())), dict(reversed(hypotheses.items())))
    assert turned.ids == result.ids and turned.corpus == result.corpus


def test_bleu_and_rouge_by_hand() -> None:
    # Two of three words are right, of four: brevity penalty e^(1 - 4/3). LCS "a port": precision 2/3, recall 1/2.
    result = Scorer(NoMeteor()).score({"a": ["a port with boats"]}, {"a": "a green port"})
    assert result.corpus["BLEU-1"] == pytest.approx(100 * math.exp(1 - 4 / 3) * 2 / 3, rel=1e-6)
    precision, recall, beta = 2 / 3, 1 / 2, 1.2
    f_measure = (1 + beta**2) * precision * recall / (recall + beta**2 * precision)
    assert result.corpus["ROUGE-L"] == pytest.approx(100 * f_measure)


@pytest.mark.parametrize(
    ("references", "hypotheses"),
    [({"a": ["x"]}, {"b": "x"}), ({}, {}), ({"a": []}, {"a": "x"}), ({"a": ["x"], "b": ["y"]}, {"a": "x"})],
)
def test_what_cannot_be_scored_is_told(references: dict[str, list[str]], hypotheses: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"must be the same|cannot be scored"):
        Scorer(NoMeteor()).score(references, hypotheses)


def test_meteor_ends_with_its_context_and_path_is_as_before() -> None:
    before = os.environ["PATH"]
    with pytest.raises(RuntimeError, match="stop"), scorer() as one:
        process = one._meteor.meteor_p
        raise RuntimeError("stop")
    assert process.poll() is not None
    assert process.stdout.closed and process.stderr.closed
    assert os.environ["PATH"] == before


def test_signature() -> None:
    found = signature({"a": ["x"] * 5, "b": ["y"] * 5}, 40)
    assert (
        found
        == f"CIDEr-D|pycocoevalcap-{version('pycocoevalcap')}|PTB|refs:5|df:test|greedy|max_tokens:40|split:test|n:2"
    )
    assert "|refs:3-5|" in signature({"a": ["x"] * 5, "b": ["y"] * 3}, 40)
    assert "|PTB|refs:caption_1|df:test|split:test|" in signature({"a": ["x"]}, None, refs="caption_1")


def test_corpus_cider_is_the_mean_that_the_bootstrap_resamples_in_either_protocol() -> None:
    references, hypotheses = _world()
    for truth in (references, caption_1(references)):
        result = Scorer(NoMeteor()).score(truth, hypotheses)
        assert result.corpus["CIDEr"] == pytest.approx(result.by_image["CIDEr"].mean())
    ours = CiderD(DocumentFrequencies.from_references(truth.values()), truth)  # of that protocol's references alone
    expected = ours.scores(result.ids, [hypotheses[id_] for id_ in result.ids])
    assert result.corpus["CIDEr"] == pytest.approx(100 * np.mean(expected))


def test_caption_1_is_each_first_reference() -> None:
    assert caption_1({"a": ["x", "y"], "b": ["z"]}) == {"a": ["x"], "b": ["z"]}


def test_grounding_wants_exactly_what_was_drawn() -> None:
    facts = json.dumps({"scene": "port", "colour": "red"})
    captions = [
        "three red boats in a port",
        "red and blue boats in a port",
        "a port near an airport with red boats",
        "a",
    ]
    assert grounding(captions, [facts] * 4) == {"scene": 0.5, "colour": 0.5}
    assert grounding(captions[:2], [facts, ""]) == {"scene": 1.0, "colour": 1.0}
    assert grounding(["a port"], [""]) == {}


def test_constant_caption_is_the_most_frequent_then_the_first() -> None:
    assert constant_caption({"a": ["x", "y"], "b": ["y", "z"]}) == "y"
    assert constant_caption({"a": ["z", "x"]}) == "x"


def test_human_caption_is_not_its_own_reference() -> None:
    assert human_caption({"a": ["x", "y", "z"], "b": ["only"]}) == ({"a": ["y", "z"]}, {"a": "x"})


def test_nearest_is_brute_force() -> None:
    rng = np.random.default_rng(0)
    test, train = rng.normal(size=(20, 6)), rng.normal(size=(33, 6))
    expected = [int(np.argmin(((train - one) ** 2).sum(axis=1))) for one in test]
    assert nearest(test, train, chunk=7) == expected


def test_image_feature_averages() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    means = pixels.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(image_feature(buffer.getvalue()), means, atol=1)
