"""Whose turn it is, what a failure takes along, and how long the rest takes."""

import pytest

from pipeline.schedule import Schedule, left

NEEDS = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d"], "f": []}


def test_a_stage_is_ready_when_all_it_depends_on_are_done() -> None:
    schedule = Schedule(NEEDS)
    assert schedule.ready() == ["a", "f"]
    schedule.begin("a")
    assert schedule.ready() == ["f"]
    schedule.finish("a")
    assert schedule.ready() == ["b", "c", "f"], "DVC's order"
    schedule.begin("b")
    schedule.finish("b")
    assert "d" not in schedule.ready(), "c is not done"


def test_what_is_put_off_waits_in_its_place() -> None:
    schedule = Schedule(NEEDS)
    schedule.begin("a")
    schedule.defer("a")
    assert schedule.waiting == list(NEEDS) and schedule.ready() == ["a", "f"]


def test_a_failure_takes_along_what_depends_on_it() -> None:
    schedule = Schedule(NEEDS)
    schedule.begin("a")
    schedule.finish("a")
    for stage in ("b", "c"):
        schedule.begin(stage)
        schedule.fail(stage)
    assert schedule.failed == {"b": ["d", "e"], "c": ["d", "e"]}, "each names what it cost"
    assert schedule.waiting == ["f"]


@pytest.mark.parametrize(
    "stages, jobs, seconds",
    [
        ({"row@x": 0.0}, 2, 10.0),  # one cannot be split
        ({"row@x": 4.0}, 2, 6.0),
        ({"row@x": 99.0}, 2, 0.0),
        ({"row@x": 0.0, "row@y": 0.0}, 2, 15.0),  # y: never run; the mean of its kind, 10 and 20
        ({"row@x": 0.0, "row@z": 0.0, "row@y": 0.0, "new": 0.0}, 2, 28.0),  # new: the mean of all, 11
        ({}, 2, 0.0),
    ],
)
def test_the_rest_by_what_each_took(stages: dict[str, float], jobs: int, seconds: float) -> None:
    assert left(stages, {"row@x": 10.0, "row@z": 20.0, "check": 3.0}, jobs) == seconds


def test_without_a_measurement_nothing_is_said() -> None:
    assert left({"a": 0.0}, {}, 2) is None
