"""Measures of a run, rows over seeds with gains and signatures, comparable rows, yardsticks from training captions."""

import random

import numpy as np
import pytest
from pycocoevalcap.cider.cider import Cider

from captioning.evaluation.outputs import Usage
from captioning.evaluation.predictions import Run
from captioning.evaluation.rows import (
    IMAGE_METRICS,
    Result,
    ScoredImages,
    evaluate,
    image_scores,
    score_rows,
    significance,
    yardsticks,
)
from captioning.evaluation.scores import Scorer, human_caption, signature
from captioning.evaluation.summary import rounded_scores
from captioning.metrics.bootstrap import interval, resampled_means
from tests.evaluation.test_scores import NoMeteor

SCORER = Scorer(NoMeteor())
REFERENCES = {"a": ["a red port", "a port"], "b": ["a blue lake", "a lake"]}
FACTS = {"a": '{"scene": "port", "colour": "red"}', "b": '{"scene": "lake", "colour": "blue"}'}
HUMAN = Run("human-caption", "yardstick", 0, None)


def _result(row: str, seed: int, *captions: str) -> Result:
    run = Run(row, "adapted", seed, "zero-shot-base" if row == "r4" else None)
    images = ScoredImages(REFERENCES, FACTS)
    return evaluate(run, images, dict(zip("ab", captions, strict=True)), SCORER, [True, False])


def _human_result(references: dict[str, list[str]], parts: dict[str, list[str]] | None = None) -> Result:
    others, captions = human_caption(references)
    return evaluate(HUMAN, ScoredImages(others, dict.fromkeys(references, ""), parts or {}), captions, SCORER)


def test_measures_of_a_run() -> None:
    measures = _result("r4", 1, "a red port", "a red port").measures
    assert measures["length"] == 3
    assert measures["ended"] == measures["distinct"] == measures["scene"] == measures["colour"] == 0.5
    assert measures["BLEU-1"] == pytest.approx(100 * 4 / 6)


def test_real_images_have_no_grounding_and_yardsticks_no_endings() -> None:
    captions = {"a": "a port", "b": "a lake"}
    yardstick = Run("constant-caption", "yardstick", 0, None)
    measures = evaluate(yardstick, ScoredImages(REFERENCES, {"a": "", "b": ""}), captions, SCORER).measures
    assert not {"scene", "colour", "ended"} & measures.keys()


def test_rows_have_seeds_means_and_gains() -> None:
    zero_shot = _result("zero-shot-base", 0, "a view", "a view")
    rows = score_rows([zero_shot, _result("r4", 1, "a port", "a view"), _result("r4", 2, "a port", "a lake")], 40)
    assert list(rows) == ["zero-shot-base", "r4"]
    assert list(rows["r4"].seeds) == ["1", "2"]
    assert rows["r4"].mean["scene"] == 0.75
    assert rows["r4"].deviation["scene"] == pytest.approx(0.125**0.5)
    assert rows["zero-shot-base"].deviation is None
    assert rows["r4"].vocabulary["infrastructure"] == Usage(share=0.5, terms=1, gain=0.5)
    assert rows["zero-shot-base"].vocabulary["infrastructure"].gain is None


def test_scores_against_caption_1_have_a_signature_of_their_own() -> None:
    row = score_rows([_result("r4", 1, "a red port", "a lake")], 40)["r4"]
    # "a lake" is one reference of b; against "a blue lake": LCS 2, precision 1, recall 2/3, beta 1.2
    assert row.mean["ROUGE-L"] == pytest.approx(100)
    assert row.mean["ROUGE-L caption_1"] == pytest.approx(50 * (1 + 2.44 * (2 / 3) / (2 / 3 + 1.44)))
    assert {f"{name} caption_1" for name in IMAGE_METRICS} <= row.mean.keys()
    assert "|refs:2|df:test|greedy|max_tokens:40|" in row.signature
    assert "|refs:caption_1|df:test|greedy|max_tokens:40|" in str(row.signature_alone)


def test_the_human_row_is_not_scored_against_itself() -> None:
    row = score_rows([_human_result(REFERENCES)], 40)["human-caption"]
    assert not any("caption_1" in name for name in [*row.model_dump(), *row.mean])
    assert "|refs:1|df:test|split:test|" in row.signature  # nothing was decoded


def _results(*error_rates: float) -> list[Result]:
    """Results of rows r0, r1, ... over 40 images, whose captions are references or wrong, and of the human row."""
    rng = random.Random(1)
    words = ["many", "green", "trees", "are", "near", "a", "large", "building", "with", "white", "roof"]
    references = {f"i{k}": [" ".join(rng.choices(words, k=7)) for _ in range(3)] for k in range(40)}
    images, results = ScoredImages(references, dict.fromkeys(references, "")), []
    for number, rate in enumerate(error_rates):
        captions = {id_: "a port" if rng.random() < rate else texts[0] for id_, texts in references.items()}
        results.append(evaluate(Run(f"r{number}", "adapted", 1, None), images, captions, SCORER))
    return [*results, _human_result(references)]


def test_rows_with_other_references_have_an_interval_and_no_letter() -> None:
    results = _results(0.0, 0.9, 0.9)
    record = significance(results, seed=1)
    assert [(pair.first, pair.second) for pair in record.pairs] == [("r0", "r1"), ("r0", "r2"), ("r1", "r2")]
    letters = {row: entry.letters for row, entry in record.rows.items()}
    assert letters == {"r0": "a", "r1": "b", "r2": "b", "human-caption": None}
    human = record.rows["human-caption"]
    expected = interval(resampled_means(results[-1].scores.by_image["CIDEr"][None], seed=1)[0])
    assert (human.low, human.high) == pytest.approx(expected, abs=1e-4)
    assert (record.resamples, record.level, record.seed) == (10_000, 0.95, 1)


def test_a_card_has_rounded_scores_with_interval_and_signatures() -> None:
    results = _results(0.3)
    row = score_rows(results, 40)["r0"]
    rounded = rounded_scores({"r0": row}, significance(results, seed=1).rows)["r0"]
    assert rounded.measures["CIDEr"] == round(row.mean["CIDEr"], 2)
    assert rounded.measures["CIDEr caption_1"] == round(row.mean["CIDEr caption_1"], 2)
    assert rounded.interval[0] < rounded.measures["CIDEr"] < rounded.interval[1]
    assert rounded.measures["distinct"] == round(row.mean["distinct"], 4)
    assert rounded.signature_alone == row.signature_alone


def test_image_scores_have_a_line_for_each_image_and_seed() -> None:
    columns = image_scores([_result("r4", seed, "a port", "a lake") for seed in (1, 2)])
    assert list(columns) == ["row", "seed", "id", *IMAGE_METRICS]
    assert columns["id"] == ["a", "b"] * 2 and columns["seed"] == [1, 1, 2, 2]
    assert all(len(values) == 4 for values in columns.values())


def test_yardsticks_take_their_captions_from_training() -> None:
    tokens = REFERENCES | {"t": ["a forest", "trees"], "u": ["a desert", "a forest"]}
    rows = yardsticks(tokens, ["t", "u"], ["a", "b"], np.array([[0.0], [9.0]]), np.array([[8.0], [1.0]]))
    assert rows["constant-caption"] == (REFERENCES, {"a": "a forest", "b": "a forest"})
    assert rows["human-caption"] == ({"a": ["a port"], "b": ["a lake"]}, {"a": "a red port", "b": "a blue lake"})
    assert rows["nearest-image"] == (REFERENCES, {"a": "a desert", "b": "a forest"})


PARTS = {  # references, and a caption that is scored
    "test:NWPU": {"n1": (["a red port", "a port"], "a red port"), "n2": (["a blue lake", "a lake"], "a red lake")},
    "test:UCM": {"u1": (["a green park", "a park"], "a green park"), "u2": (["a grey port", "a port"], "a grey lake")},
    "validation:UCM": {"v1": (["a grey road", "a road"], "a road"), "v2": (["a grey port", "a dry port"], "a port")},
}
NAMES = {"test:NWPU": "NWPU", "test:UCM": "UCM", "validation:UCM": "UCM validation part"}


def _result_of_parts() -> Result:
    pairs = {id_: pair for part in PARTS.values() for id_, pair in part.items()}
    references = {id_: texts for id_, (texts, _) in pairs.items()}
    parts = {label: list(part) for label, part in PARTS.items()}
    images = ScoredImages(references, dict.fromkeys(["n1", "n2", "u1", "u2"], ""), parts)
    captions = {id_: caption for id_, (_, caption) in pairs.items()}
    return evaluate(Run("r4", "adapted", 1, None), images, captions, SCORER, [True] * 4)


def test_each_part_is_scored_with_its_own_document_frequencies() -> None:
    """pycocoevalcap's scores of the part's images alone, as if there were no others."""
    row = score_rows([_result_of_parts()], 40)["r4"]
    assert list(row.sources) == list(NAMES.values())
    for label, part in PARTS.items():
        entry = row.sources[NAMES[label]]
        truth = {id_: texts for id_, (texts, _) in part.items()}
        corpus, _ = Cider().compute_score(truth, {id_: [caption] for id_, (_, caption) in part.items()})
        assert entry.mean["CIDEr"] == pytest.approx(100 * corpus)
        assert entry.images == 2
        assert entry.signature.endswith(f"|df:{label}|greedy|max_tokens:40|split:{label}|n:2")
    assert len({entry.mean["CIDEr"] for entry in row.sources.values()} | {row.mean["CIDEr"]}) == 4


def test_held_out_images_are_in_no_score_of_the_test_split() -> None:
    result = _result_of_parts()
    assert result.scores.ids == ("n1", "n2", "u1", "u2") and result.captions.keys() == result.references.keys()
    assert "v1" not in image_scores([result])["id"] and result.measures["length"] == 3


def test_parts_have_intervals_of_their_own() -> None:
    result = _result_of_parts()
    record = significance([result], seed=1).rows["r4"]
    assert list(record.sources) == list(NAMES.values())
    scores = result.parts["validation:UCM"].scores.by_image["CIDEr"]
    expected = interval(resampled_means(scores[None], seed=1)[0])
    assert record.sources["UCM validation part"] == pytest.approx(expected, abs=1e-4)
    alone = significance([_result("r4", 1, "a port", "a lake")], seed=1).rows["r4"]
    assert "sources" in record.model_dump() and "sources" not in alone.model_dump()


def test_a_single_part_is_not_scored_twice() -> None:
    result = _human_result(REFERENCES, {"test:UCM": ["a", "b"]})
    assert score_rows([result], 40)["human-caption"].sources == {}
    assert significance([result], seed=1).rows["human-caption"].sources == {}


def test_one_reference_an_image_has_no_human_row() -> None:
    """Unequal numbers have one, over the images with several references; the signature names the numbers."""
    tokens = {"t": ["a forest"], "a": ["a red port"], "b": ["a lake"]}
    features = np.array([[0.0]]), np.array([[8.0], [1.0]])
    rows = yardsticks(tokens, ["t"], ["a", "b"], *features)
    assert list(rows) == ["constant-caption", "nearest-image"]
    assert "|refs:1|" in signature(rows["nearest-image"][0], 40)
    rows = yardsticks(
        tokens | {"b": ["a lake", *(f"lake {number}" for number in range(19))]}, ["t"], ["a", "b"], *features
    )
    assert rows["human-caption"][1] == {"b": "a lake"} and "|refs:1-20|" in signature(rows["nearest-image"][0], 40)
