"""Decide which stage runs next: when all that it needs is done, in DVC's order.

After a failure, the stages that need the failed one do not run; all others do.
"""

from collections.abc import Collection, Mapping
from itertools import chain
from statistics import mean


class Schedule:
    """The state of each stage; `needs`: the stages that each depends on, in DVC's order."""

    def __init__(self, needs: Mapping[str, Collection[str]]) -> None:
        self.needs = {stage: set(needed) for stage, needed in needs.items()}
        self.running, self.finished = set[str](), set[str]()
        self.failed: dict[str, list[str]] = {}  # failed stage -> stages that do not run because of it

    @property
    def waiting(self) -> list[str]:
        """Return the stages that have not started and may still run."""
        started = {*self.running, *self.finished, *self.failed, *chain(*self.failed.values())}
        return [stage for stage in self.needs if stage not in started]

    def ready(self) -> list[str]:
        """Return the stages that may start now."""
        return [stage for stage in self.waiting if self.needs[stage] <= self.finished]

    def start(self, stage: str) -> None:
        self.running.add(stage)

    def defer(self, stage: str) -> None:
        """Let a running stage wait again."""
        self.running.remove(stage)

    def finish(self, stage: str) -> None:
        self.running.discard(stage)
        self.finished.add(stage)

    def fail(self, stage: str) -> None:
        self.running.remove(stage)
        blocked = {stage}
        for other, needs in self.needs.items():  # each stage comes after those that it needs
            if needs & blocked:
                blocked.add(other)
        self.failed[stage] = [other for other in self.needs if other in blocked - {stage}]


def estimate_seconds(stages: Mapping[str, float], durations: Mapping[str, float], jobs: int) -> float | None:
    """Estimate the seconds until all `stages` are done; None without any duration.

    `stages`: seconds since each started, 0 if it waits. A stage takes as long as the last time, otherwise the mean of
    its kind (`qlora-train` of `qlora-train@mix-1`), otherwise the mean of all.
    """
    if not durations:
        return None

    def expected(stage: str) -> float:
        kind = stage.partition("@")[0]
        similar = [seconds for other, seconds in durations.items() if other.partition("@")[0] == kind]
        return durations.get(stage, mean(similar or durations.values()))

    remaining = [max(0.0, expected(stage) - seconds) for stage, seconds in stages.items()]
    return max(sum(remaining) / jobs, max(remaining, default=0.0))
