"""Measures of a run, rows over seeds with gains, and yardsticks from training captions alone."""

import numpy as np
import pytest

from captioning.evaluation import BY_IMAGE, Evaluated, by_row, evaluate, image_scores, rounded_means, yardsticks
from captioning.scores import Scorer


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
    rows = by_row(runs, {"r4": "zero-shot-base", "zero-shot-base": None})
    assert list(rows) == ["zero-shot-base", "r4"]
    assert list(rows["r4"]["seeds"]) == ["1", "2"]
    assert rows["r4"]["mean"]["scene"] == 0.75
    assert rows["r4"]["deviation"]["scene"] == pytest.approx(0.125**0.5)
    assert rows["zero-shot-base"]["deviation"] is None
    assert rows["r4"]["vocabulary"]["infrastructure"] == {"share": 0.5, "terms": 1, "gain": 0.5}
    assert rows["zero-shot-base"]["vocabulary"]["infrastructure"]["gain"] is None
    assert rounded_means(rows)["r4"]["BLEU-1"] == round(rows["r4"]["mean"]["BLEU-1"], 2)


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
