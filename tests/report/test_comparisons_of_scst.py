"""SCST's table: start and gain of each baseline with intervals, in points and percent."""

import pytest

from captioning.evaluation.outputs import RowScores
from captioning.evaluation.significance import Difference
from captioning.report.comparisons import make_study_table, name_study
from captioning.report.table import Refinement, RunOutputs
from tests.helpers.small_recipes import scst_recipe
from tests.report.test_table import make_run

GREEDY, LEAVE_ONE_OUT = "scst-mix-greedy", "scst-mix-leave-one-out"
RECIPES = {row: scst_recipe(baseline=row.removeprefix("scst-mix-"), images=500) for row in (GREEDY, LEAVE_ONE_OUT)}
PAIRS = [  # the table shows the opposite direction
    Difference("mix", GREEDY, -10.0, -16.0, -4.0, -20.0, 0.5, None, False),
    Difference(LEAVE_ONE_OUT, "mix", -10.0, -16.0, -4.0, -20.0, 0.5, None, False),
]


def row(cider: float, length: float, ended: float) -> RowScores:
    return RowScores.model_construct(mean={"CIDEr": cider, "length": length, "ended": ended})


def training(best: float, step: int, *gain: float | None) -> Refinement:
    names = ("gain_percent", "gain_percent_low", "gain_percent_high")
    gains = dict(zip(names, gain, strict=True))
    return Refinement.model_construct(start_validation_cider=100.0, validation_cider=best, best_step=step, **gains)


ROWS = {"mix": row(200.0, 10.0, 0.99), GREEDY: row(210.0, 9.5, 1.0), LEAVE_ONE_OUT: row(190.0, 12.0, 0.9)}


def run(records: dict[str, list[Refinement]], rows: dict[str, RowScores]) -> RunOutputs:
    return make_run(rows, {}, records, {row: RECIPES[row] for row in records}, PAIRS)


def test_table_by_hand() -> None:
    records = {GREEDY: [training(105.0, 8, 5.0, 1.5, 8.0)]}
    records[LEAVE_ONE_OUT] = [training(104.0, 16, 4.0, -0.5, 8.5), training(103.0, 24, 3.0, -1.0, 7.0)]
    header, rows = make_study_table(run(records, ROWS))
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


def test_a_start_with_score_0_has_no_percentage() -> None:
    records = {GREEDY: [training(5.0, 8, None, None, None)]}
    cells = dict(make_study_table(run(records, ROWS | {"mix": row(0.0, 10.0, 0.99)}))[1])
    assert cells["validation gain, %"] == cells["test gain, %"] == "–"
    assert cells["test gain, points"] == "+10.0 (+4.0 to +16.0)"


@pytest.mark.parametrize("images", [0, 960, 2000])
def test_title_names_the_number_of_images(images: int) -> None:
    assert name_study(scst_recipe(images=images), 960) == "all 960 training images"
    assert name_study(RECIPES[GREEDY], 960) == "the 500-image study"
