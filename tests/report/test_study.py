"""SCST's table: start and gain of each baseline with intervals, points and percent; a heading true of any number."""

from typing import Any

import pytest

from captioning.evaluation.significance import Difference
from captioning.report.comparisons import heading, study

RECIPES: dict[str, Any] = {
    f"scst-mix-{name}": {"scst": {"start": "mix", "baseline": name, "images": 500}}
    for name in ("greedy", "leave-one-out")
}
ROWS: dict[str, Any] = {
    row: {"mean": {"CIDEr": cider, "length": length, "ended": ended}}
    for row, cider, length, ended in [("mix", 200.0, 10.0, 0.99), ("scst-mix-greedy", 210.0, 9.5, 1.0),
                                      ("scst-mix-leave-one-out", 190.0, 12.0, 0.9)]
}  # fmt: skip


def run(best: float, step: int, gain: tuple[float | None, ...]) -> dict[str, Any]:
    names = ("gain_percent", "gain_percent_low", "gain_percent_high")
    return {
        "start_validation_cider": 100.0,
        "validation_cider": best,
        "best_step": step,
        **dict(zip(names, gain, strict=True)),
    }


TRAINING: dict[str, Any] = {
    "scst-mix-greedy": [run(105.0, 8, (5.0, 1.5, 8.0))],
    "scst-mix-leave-one-out": [run(104.0, 16, (4.0, -0.5, 8.5)), run(103.0, 24, (3.0, -1.0, 7.0))],
}
PAIRS = [  # the start first: what is shown is the other way round
    Difference("mix", "scst-mix-greedy", -10.0, -16.0, -4.0, -20.0, 0.5, None, False),
    Difference("scst-mix-leave-one-out", "mix", -10.0, -16.0, -4.0, -20.0, 0.5, None, False),
]


def test_start_gain_and_test_stand_side_by_side() -> None:
    header, rows = study(RECIPES, TRAINING, ROWS, PAIRS)
    assert header == ["", "mix, greedy", "mix, leave-one-out"]
    assert rows == [
        ["validation CIDEr, start → best (step)", "100.0 → 105.0 (8)", "100.0 → 104.0 (16); 100.0 → 103.0 (24)"],
        ["validation gain, %", "+5.0 (+1.5 to +8.0)", "+4.0 (-0.5 to +8.5); +3.0 (-1.0 to +7.0)"],
        ["test CIDEr, start → refined", "200.0 → 210.0", "200.0 → 190.0"],
        ["test gain, points", "+10.0 (+4.0 to +16.0)", "-10.0 (-16.0 to -4.0)"],
        ["test gain, %", "+5.0 (+2.0 to +8.0)", "-5.0 (-8.0 to -2.0)"],  # of 200
        ["words a test caption", "10.0 → 9.5", "10.0 → 12.0"],
        ["ended test captions, %", "99.0 → 100.0", "99.0 → 90.0"],
    ]


def test_a_start_that_scores_nothing_has_no_percentage() -> None:
    nothing = {"scst-mix-greedy": [run(5.0, 8, (None, None, None))]}
    rows = ROWS | {"mix": {"mean": ROWS["mix"]["mean"] | {"CIDEr": 0.0}}}
    cells = dict(study({"scst-mix-greedy": RECIPES["scst-mix-greedy"]}, nothing, rows, PAIRS)[1])
    assert cells["validation gain, %"] == cells["test gain, %"] == "–"
    assert cells["test gain, points"] == "+10.0 (+4.0 to +16.0)"


@pytest.mark.parametrize(("images", "title"), [
    (500, "the 500-image study"), (0, "all 960 training images"), (960, "all 960 training images"),
    (2000, "all 960 training images"), (1, "the 1-image study"),
])  # fmt: skip
def test_heading_is_true_of_any_number(images: int, title: str) -> None:
    assert heading({"scst": {"images": images}}, 960) == title
