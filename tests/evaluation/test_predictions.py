"""The parameters decide the runs; predictions are read in order; scores are summarized over seeds."""

import json
from pathlib import Path

import pytest

from captioning.base.errors import UserError
from captioning.evaluation.predictions import expected_runs, read_predictions, summarize_seeds


def _line(id_: str, caption: str = "A port .") -> str:
    return json.dumps({"id": id_, "caption": caption, "tokens": 4, "ended": True}, ensure_ascii=False)


def test_runs_follow_from_the_parameters() -> None:
    starts = {"scst-r4-greedy": "r4", "scst-mixed-greedy": "mixed"}
    runs = expected_runs(["base"], {"r4": "base", "mixed": "mix"}, starts, [1, 2])
    rows = ["r4", "mixed", "scst-r4-greedy", "scst-mixed-greedy"]
    assert [run.name for run in runs] == ["zero-shot-base", *(f"{row}-{seed}" for row in rows for seed in (1, 2))]
    assert {run.row for run in runs if run.zero_shot == "zero-shot-base"} == {"r4", "scst-r4-greedy"}
    assert {run.row for run in runs if run.zero_shot is None} == {"zero-shot-base", "mixed", "scst-mixed-greedy"}
    assert {run.kind for run in runs} == {"zero-shot", "adapted", "scst"}


def test_predictions_come_in_the_order_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join([_line("a"), _line("b", "a\u2028lake"), ""]), encoding="utf-8")
    predictions = read_predictions(path, ["b", "a"])
    assert [(record.id, record.caption) for record in predictions] == [("b", "a\u2028lake"), ("a", "A port .")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file"),
        (f"{_line('a')}\nnot json\n", r"p\.jsonl:2: 'not json' is not JSON"),
        ('{"id": "a"}', "with id, caption, tokens, ended"),
        (_line("a"), "not one prediction for each test image \\('b'\\)"),
        (f"{_line('a')}\n{_line('a')}\n{_line('b')}", "'a'"),
        (f"{_line('a')}\n{_line('b')}\n{_line('z')}", "'z'"),
    ],
)
def test_damaged_predictions_name_the_stage_that_writes_them(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "p.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=f"{message}.*; run its generate stage again"):
        read_predictions(path, ["a", "b"])


def test_mean_and_deviation_over_seeds() -> None:
    summary = summarize_seeds({"1": {"CIDEr": 1.0}, "2": {"CIDEr": 4.0}, "3": {"CIDEr": 4.0}})
    assert summary.mean == {"CIDEr": 3.0}
    assert summary.deviation and summary.deviation["CIDEr"] == pytest.approx(3**0.5)
    assert summarize_seeds({"1": {"CIDEr": 1.0}}).deviation is None
