"""Measures of a run, rows over seeds with gains and signatures, comparable rows, yardsticks from training alone."""

import random

import numpy as np
import pytest

from captioning.evaluation.rows import (
    BY_IMAGE,
    Evaluated,
    by_row,
    differences,
    evaluate,
    image_scores,
    metrics,
    yardsticks,
)
from captioning.evaluation.scores import Scorer, human_caption
from captioning.evaluation.significance import interval, resampled_means


class NoMeteor:
    def compute_score(self, truth: dict[str, list[str]], said: dict[str, list[str]]) -> tuple[float, list[float]]:
        return 0.0, [0.0] * len(truth)


REFERENCES = {"a": ["a red port", "a port"], "b": ["a blue lake", "a lake"]}


def _run(row: str, seed: int, a: str, b: str) -> Evaluated:
    facts = {"a": '{"scene": "port", "colour": "red"}', "b": '{"scene": "lake", "colour": "blue"}'}
    return evaluate(row, "adapted", seed, REFERENCES, {"a": a, "b": b}, facts, Scorer(NoMeteor()), [True, False])


def test_measures_of_a_run() -> None:
    measures = _run("r4", 1, "a red port", "a red port").measures
    assert {name: measures[name] for name in ("length", "ended", "distinct", "scene", "colour")} == {
        "length": 3.0, "ended": 0.5, "distinct": 0.5, "scene": 0.5, "colour": 0.5}  # fmt: skip
    assert measures["BLEU-1"] == pytest.approx(100 * 4 / 6)


def test_no_facts_no_grounding_and_no_model_no_ending() -> None:
    said = {"a": "a port", "b": "a lake"}
    measures = evaluate("x", "yardstick", 0, REFERENCES, said, {"a": "", "b": ""}, Scorer(NoMeteor())).measures
    assert not {"scene", "colour", "ended"} & measures.keys()


def test_rows_hold_seeds_means_and_gains() -> None:
    runs = [
        _run("zero-shot-base", 0, "a view", "a view"),
        _run("r4", 1, "a port", "a view"),
        _run("r4", 2, "a port", "a lake"),
    ]
    rows = by_row(runs, {"r4": "zero-shot-base", "zero-shot-base": None}, 40)
    assert list(rows) == ["zero-shot-base", "r4"]
    assert list(rows["r4"]["seeds"]) == ["1", "2"]
    assert rows["r4"]["mean"]["scene"] == 0.75
    assert rows["r4"]["deviation"]["scene"] == pytest.approx(0.125**0.5)
    assert rows["zero-shot-base"]["deviation"] is None
    assert rows["r4"]["vocabulary"]["infrastructure"] == {"share": 0.5, "terms": 1, "gain": 0.5}
    assert rows["zero-shot-base"]["vocabulary"]["infrastructure"]["gain"] is None


def test_every_score_stands_against_caption_1_too_and_carries_its_signature() -> None:
    runs = [_run("r4", 1, "a red port", "a lake")]
    found = by_row(runs, {}, 40)["r4"]
    # "a lake" of "a blue lake": LCS 2, precision 1, recall 2/3, beta 1.2; of its second reference it is all
    assert found["mean"]["ROUGE-L"] == pytest.approx(100)
    assert found["mean"]["ROUGE-L caption_1"] == pytest.approx(50 * (1 + 2.44 * (2 / 3) / (2 / 3 + 1.44)))
    assert {f"{name} caption_1" for name in BY_IMAGE} <= found["mean"].keys()
    assert "|refs:2|df:test|greedy|max_tokens:40|" in found["signature"]
    assert "|refs:caption_1|df:test|greedy|max_tokens:40|" in found["signature caption_1"]


def test_the_human_row_is_not_scored_against_itself() -> None:
    truth, said = human_caption(REFERENCES)
    run = evaluate("human-caption", "yardstick", 0, truth, said, dict.fromkeys("ab", ""), Scorer(NoMeteor()))
    found = by_row([run], {}, 40)["human-caption"]
    assert not any("caption_1" in name for name in [*found, *found["mean"]])
    assert "|refs:1|df:test|split:test|" in found["signature"]  # nothing was decoded


def _world(*noise: float) -> list[Evaluated]:
    """Rows r0, r1, ... over 40 images, each of whose captions is a reference but with the given probability."""
    rng = random.Random(1)
    words = ["many", "green", "trees", "are", "near", "a", "large", "building", "with", "white", "roof"]
    truth = {f"i{k}": [" ".join(rng.choices(words, k=7)) for _ in range(3)] for k in range(40)}
    said = [{id_: "a port" if rng.random() < wrong else of[0] for id_, of in truth.items()} for wrong in noise]
    runs = [evaluate(f"r{number}", "adapted", 1, truth, captions, dict.fromkeys(truth, ""), Scorer(NoMeteor()))
            for number, captions in enumerate(said)]  # fmt: skip
    others, own = human_caption(truth)
    human = evaluate("human-caption", "yardstick", 0, others, own, dict.fromkeys(truth, ""), Scorer(NoMeteor()))
    return [*runs, human]


def test_rows_of_other_references_have_an_interval_and_no_letter() -> None:
    results = _world(0.0, 0.9, 0.9)
    found = differences(results, seed=1)
    assert [(one["first"], one["second"]) for one in found["pairs"]] == [("r0", "r1"), ("r0", "r2"), ("r1", "r2")]
    assert {row: entry["letters"] for row, entry in found["rows"].items()} == {
        "r0": "a", "r1": "b", "r2": "b", "human-caption": None}  # fmt: skip
    human = found["rows"]["human-caption"]
    expected = interval(resampled_means(results[-1].scores.by_image["CIDEr"][None], seed=1)[0])
    assert (human["low"], human["high"]) == pytest.approx(expected, abs=1e-4)
    assert found["resamples"] == 10_000 and found["level"] == 0.95 and found["seed"] == 1


def test_metrics_hold_rounded_scores_their_interval_and_signatures() -> None:
    results = _world(0.3)
    rows, found = by_row(results, {}, 40), differences(results, seed=1)
    written = metrics(rows, found["rows"])["r0"]
    assert written["CIDEr"] == round(rows["r0"]["mean"]["CIDEr"], 2)
    assert written["CIDEr caption_1"] == round(rows["r0"]["mean"]["CIDEr caption_1"], 2)
    assert written["CIDEr low"] < written["CIDEr"] < written["CIDEr high"]
    assert written["distinct"] == round(rows["r0"]["mean"]["distinct"], 4)
    assert written["signature caption_1"] == rows["r0"]["signature caption_1"]


def test_image_scores_are_a_line_an_image() -> None:
    columns = image_scores([_run("r4", 1, "a port", "a lake"), _run("r4", 2, "a port", "a lake")])
    assert list(columns) == ["row", "seed", "id", *BY_IMAGE]
    assert columns["id"] == ["a", "b"] * 2 and columns["seed"] == [1, 1, 2, 2]
    assert all(len(of) == 4 for of in columns.values())


def test_yardsticks_take_their_captions_from_training() -> None:
    tokens = REFERENCES | {"t": ["a forest", "trees"], "u": ["a forest", "a desert"]}
    rows = yardsticks(tokens, ["t", "u"], ["a", "b"], np.array([[0.0], [9.0]]), np.array([[8.0], [1.0]]))
    assert rows["constant-caption"] == (REFERENCES, {"a": "a forest", "b": "a forest"})
    assert rows["human-caption"] == ({"a": ["a port"], "b": ["a lake"]}, {"a": "a red port", "b": "a blue lake"})
    tokens["u"] = ["a desert"]
    rows = yardsticks(tokens, ["t", "u"], ["a", "b"], np.array([[0.0], [9.0]]), np.array([[8.0], [1.0]]))
    assert rows["nearest-image"][1] == {"a": "a desert", "b": "a forest"}
