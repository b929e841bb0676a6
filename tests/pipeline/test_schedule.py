"""Which stage runs next, what a failure blocks, and how long the remaining stages take."""

import pytest

from pipeline.schedule import Schedule, estimate_seconds

NEEDS = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"], "e": ["d"], "f": []}


def test_a_stage_is_ready_when_all_that_it_needs_is_done() -> None:
    schedule = Schedule(NEEDS)
    assert schedule.ready() == ["a", "f"]
    schedule.start("a")
    assert schedule.ready() == ["f"]
    schedule.finish("a")
    assert schedule.ready() == ["b", "c", "f"], "DVC's order"
    schedule.start("b")
    schedule.finish("b")
    assert "d" not in schedule.ready(), "c is not done"


def test_a_failure_blocks_what_depends_on_it() -> None:
    schedule = Schedule(NEEDS)
    schedule.start("a")
    schedule.finish("a")
    for stage in ("b", "c"):
        schedule.start(stage)
    for stage in ("b", "c"):
        schedule.fail(stage)
    assert schedule.failed == {"b": ["d", "e"], "c": ["d", "e"]}
    assert schedule.waiting == ["f"]


@pytest.mark.parametrize(
    ("stages", "jobs", "seconds"),
    [
        ({"row@x": 0.0}, 2, 10.0),  # one stage cannot be split
        ({"row@x": 4.0}, 2, 6.0),
        ({"row@x": 99.0}, 2, 0.0),
        ({"row@x": 0.0, "row@y": 0.0}, 2, 15.0),  # y: never run; the mean of its kind, 10 and 20
        ({"row@x": 0.0, "row@z": 0.0, "row@y": 0.0, "new": 0.0}, 2, 28.0),  # new: the mean of all, 11
        ({}, 2, 0.0),
    ],
)
def test_the_eta_follows_from_the_last_durations(stages: dict[str, float], jobs: int, seconds: float) -> None:
    assert estimate_seconds(stages, {"row@x": 10.0, "row@z": 20.0, "check": 3.0}, jobs) == seconds
    assert estimate_seconds(stages, {}, jobs) is None
