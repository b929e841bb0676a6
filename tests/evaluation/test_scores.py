"""Corpus scores agree with our own CIDEr-D; METEOR's process ends; yardsticks by hand."""

import io
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocoevalcap.meteor import meteor

from captioning.evaluation.scores import (
    ASKED,
    METRICS,
    Scorer,
    cider_d,
    constant_caption,
    first_references,
    grounding,
    human_caption,
    image_feature,
    nearest_rows,
    open_scorer,
    signature,
)
from captioning.metrics.cider import CiderD, DocumentFrequencies

TEXT = "many green trees are near a large building with white roof in the port"
WORDS = TEXT.split()


class NoMeteor:
    """Replaces METEOR, which takes 6 seconds to load."""

    def compute_score(self, truth: dict[str, list[str]], captions: object) -> tuple[float, list[float]]:
        return 0.0, [0.0] * len(truth)


@pytest.fixture(scope="module")
def real_scorer() -> Iterator[Scorer]:
    with open_scorer() as scorer:
        yield scorer


def _corpus(images: int = 30) -> tuple[dict[str, list[str]], dict[str, str]]:
    rng = random.Random(1)
    references = {f"i{i}": [" ".join(rng.choices(WORDS, k=rng.randint(4, 9))) for _ in range(5)] for i in range(images)}
    texts = {id_: [*captions, " ".join(rng.choices(WORDS, k=6))] for id_, captions in references.items()}
    return references, {id_: rng.choice(captions) for id_, captions in texts.items()}


def assert_equal_to_plain_meteor(scorer: Scorer, references: dict[str, list[str]], captions: dict[str, str]) -> None:
    """The same process, asked for one alignment after the other as pycocoevalcap does."""
    expected, plain = scorer.score(references, captions).by_image["METEOR"], scorer._peer
    asked = {id_: meteor.Meteor._stat(plain, captions[id_], texts) for id_, texts in references.items()}
    assert asked == {id_: plain._stat(captions[id_], texts) for id_, texts in references.items()}
    plain.meteor_p.stdin.write("".join(f"EVAL ||| {asked[id_]}\n" for id_ in sorted(asked)).encode())
    plain.meteor_p.stdin.flush()
    lines = [float(plain.meteor_p.stdout.readline()) for _ in range(2 * len(asked))]
    np.testing.assert_allclose(expected, 100 * np.array(lines[::2]), rtol=1e-12)


def test_a_new_meteor_below_a_folder_with_a_space_and_an_accent_gives_the_same(
    real_scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """METEOR does not find its data there, so a copy of it starts. What another one remembers of its images is the
    same; process, copy and PATH go with the context."""
    (references, captions), path = _corpus(), os.environ["PATH"]
    accented = {"a": ["a caf\u00e9 near boats"] * 2}, {"a": "a caf\u00e9 by a boat"}
    real_scorer.score(references, captions)
    part = [{id_: texts[id_] for id_ in sorted(captions)[:9]} for texts in (references, captions)]
    folder = shutil.copytree(Path(meteor.__file__).parent, tmp_path / "d \u00e9 spaces")
    monkeypatch.setattr(meteor, "__file__", str(folder / "meteor.py"))
    monkeypatch.setattr(tempfile, "tempdir", str(scratch := tmp_path / "scratch"))
    scratch.mkdir()
    with pytest.raises(RuntimeError, match="stop"), open_scorer() as scorer:
        process = scorer._peer.meteor_p
        for texts in (part, accented):
            new, expected = scorer.score(*texts), real_scorer.score(*texts)
            assert new.corpus == expected.corpus and 0 < new.corpus["METEOR"] < 100
            assert new.by_image["METEOR"].tolist() == expected.by_image["METEOR"].tolist()
        monkeypatch.setattr("captioning.evaluation.scores.REMEMBERED", 10)
        assert_equal_to_plain_meteor(scorer, *_corpus(2 * ASKED + 5))
        assert list(scratch.iterdir())
        raise RuntimeError("stop")
    assert not list(scratch.iterdir()) and meteor.METEOR_JAR == "meteor-1.5.jar"
    assert process.poll() is not None and process.stdout.closed and process.stderr.closed
    assert os.environ["PATH"] == path


def test_an_error_while_meteor_starts_leaves_nothing_that_waits() -> None:
    with pytest.raises(RuntimeError, match="stop"), open_scorer() as scorer:
        scorer.score(*_corpus())
        raise RuntimeError("stop")
    scorer._thread.shutdown(wait=True)
    assert not scorer._peer.lock.locked()


def test_all_metrics_of_perfect_empty_and_other_captions(real_scorer: Scorer) -> None:
    captions = {"a": "many boats are in the port", "b": "two planes near a runway", "c": "a green lake"}
    references = {id_: [caption] * 2 for id_, caption in captions.items()}
    perfect = real_scorer.score(references, captions)
    assert perfect.corpus["BLEU-1"] == pytest.approx(100)
    assert perfect.corpus["ROUGE-L"] == pytest.approx(100)
    assert perfect.corpus["METEOR"] > 95
    assert set(perfect.corpus) == set(perfect.by_image) == set(METRICS)
    other = real_scorer.score(references, captions | {"b": "", "c": "a blue lake"})
    assert other.by_image["METEOR"][1] == 0
    assert 0 < other.by_image["METEOR"][2] < other.by_image["METEOR"][0]


@pytest.mark.parametrize("alone", [False, True])
def test_corpus_cider_is_the_mean_of_our_own_cider_in_any_order(alone: bool) -> None:
    references, hypotheses = _corpus()
    truth = first_references(references) if alone else references
    scores = Scorer(NoMeteor()).score(truth, hypotheses)
    for _ in range(2):  # once with references that are weighed already
        sooner = Scorer(NoMeteor()).score(truth, hypotheses, cider_d)
        assert sooner.corpus == pytest.approx(scores.corpus, rel=1e-12)
        np.testing.assert_allclose(sooner.by_image["CIDEr"], scores.by_image["CIDEr"], rtol=0, atol=1e-9)
    ours = CiderD(DocumentFrequencies.from_references(truth.values()), truth)
    expected = 100 * ours.scores(scores.ids, [hypotheses[id_] for id_ in scores.ids])
    np.testing.assert_allclose(scores.by_image["CIDEr"], expected, rtol=0, atol=1e-7)
    assert scores.corpus["CIDEr"] == pytest.approx(expected.mean())
    reordered = Scorer(NoMeteor()).score(dict(reversed(truth.items())), dict(reversed(hypotheses.items())))
    assert reordered.ids == scores.ids and reordered.corpus == scores.corpus


@pytest.mark.parametrize(
    ("references", "hypotheses"),
    [({"a": ["x"]}, {"b": "x"}), ({}, {}), ({"a": []}, {"a": "x"}), ({"a": ["x"], "b": ["y"]}, {"a": "x"})],
)
def test_missing_captions_and_references_are_refused(
    references: dict[str, list[str]], hypotheses: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"must be the same|cannot be scored"):
        Scorer(NoMeteor()).score(references, hypotheses)


def test_signature() -> None:
    package = f"CIDEr-D|pycocoevalcap-{version('pycocoevalcap')}|PTB"
    full = f"{package}|refs:5|df:test|greedy|max_tokens:40|split:test|n:2"
    assert signature({"a": ["x"] * 5, "b": ["y"] * 5}, 40) == full
    assert "|refs:3-5|" in signature({"a": ["x"] * 5, "b": ["y"] * 3}, 40)
    assert "|PTB|refs:caption_1|df:test|split:test|" in signature({"a": ["x"]}, None, refs="caption_1")


def test_grounding_requires_exactly_the_drawn_facts() -> None:
    facts = json.dumps({"scene": "port", "colour": "red"})
    captions = ["three red boats in a port", "red and blue boats in a port", "a port near an airport with red boats"]
    assert grounding([*captions, "a"], [facts] * 4) == {"scene": 0.5, "colour": 0.5}
    assert grounding(captions[:2], [facts, ""]) == {"scene": 1.0, "colour": 1.0}
    assert grounding(["a port"], [""]) == {}


def test_yardstick_captions_by_hand() -> None:
    assert constant_caption({"a": ["x", "y"], "b": ["y", "z"]}) == "y"
    assert constant_caption({"a": ["z", "x"]}) == "x"
    assert human_caption({"a": ["x", "y", "z"], "b": ["only"]}) == ({"a": ["y", "z"]}, {"a": "x"})


def test_nearest_rows_equal_brute_force() -> None:
    rng = np.random.default_rng(0)
    test, train = rng.normal(size=(20, 6)), rng.normal(size=(33, 6))
    expected = [int(np.argmin(((train - row) ** 2).sum(axis=1))) for row in test]
    assert nearest_rows(test, train, chunk=7) == expected


def test_image_feature_averages() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    means = pixels.reshape(8, 2, 8, 2, 3).mean(axis=(1, 3)).ravel()
    np.testing.assert_allclose(image_feature(buffer.getvalue()), means, atol=1)
