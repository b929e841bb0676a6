"""Rows follow from the parameters; a file of predictions is checked whole; seeds are summed up."""

import json
from pathlib import Path

import pytest

from captioning.base.errors import UserError
from captioning.evaluation.predictions import expected_runs, read_predictions, sum_up


def _line(id_: str, caption: str = "A port .") -> str:
    return json.dumps({"id": id_, "caption": caption, "tokens": 4, "ended": True})


def test_runs_follow_from_the_parameters() -> None:
    runs = expected_runs(
        ["base"], {"r4": "base", "mixed": "mix"}, {"scst-r4-greedy": "r4", "scst-mixed-greedy": "mixed"}, [1, 2]
    )
    assert [run.name for run in runs] == [
        "zero-shot-base", "r4-1", "r4-2", "mixed-1", "mixed-2", "scst-r4-greedy-1", "scst-r4-greedy-2",
        "scst-mixed-greedy-1", "scst-mixed-greedy-2",
    ]  # fmt: skip
    assert {run.row for run in runs if run.zero_shot == "zero-shot-base"} == {"r4", "scst-r4-greedy"}
    assert {run.row for run in runs if run.zero_shot is None} == {"zero-shot-base", "mixed", "scst-mixed-greedy"}
    assert {run.kind for run in runs} == {"zero-shot", "adapted", "scst"}


def test_predictions_come_in_the_order_of_ids(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    broken = json.dumps({"id": "b", "caption": "a\u2028lake", "tokens": 4, "ended": True}, ensure_ascii=False)
    path.write_text(f"{_line('a')}\n{broken}\n", encoding="utf-8")
    found = read_predictions(path, ["b", "a"])
    assert [(one["id"], one["caption"]) for one in found] == [("b", "a\u2028lake"), ("a", "A port .")]


def test_all_faults_are_told(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f'{_line("a")}\n{_line("a")}\nnot json\n{{"id": "c"}}\n[]\n{_line("z")}\n')
    with pytest.raises(UserError) as caught:
        read_predictions(path, ["a", "b"])
    message = str(caught.value)
    assert all(f"p.jsonl:{line}: " in message for line in (2, 3, 4, 5))
    assert "'a' is there twice" in message and "no prediction for 'b'" in message and "'z' is no test image" in message


def test_a_missing_file_names_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mix-1\.jsonl.*generate"):
        read_predictions(tmp_path / "mix-1.jsonl", ["a"])


def test_seeds_are_summed_up() -> None:
    found = sum_up({"1": {"CIDEr": 1.0}, "2": {"CIDEr": 4.0}, "3": {"CIDEr": 4.0}})
    assert found["mean"] == {"CIDEr": 3.0}
    assert found["deviation"]["CIDEr"] == pytest.approx(3**0.5)
    assert sum_up({"1": {"CIDEr": 1.0}})["deviation"] is None
