"""Whose turn it is: a stage starts when all it depends on are done, otherwise in DVC's own order.

What depends on a failed stage is not run; everything else is.
"""

from collections.abc import Collection, Mapping


def kind(stage: str) -> str:
    """`qlora-train` of `qlora-train@mix-1`."""
    return stage.partition("@")[0]


class Schedule:
    """Stages that wait, run, are done or have failed; `needs`: what each depends on, in DVC's order."""

    def __init__(self, needs: Mapping[str, Collection[str]]) -> None:
        self.needs = {stage: set(others) for stage, others in needs.items()}
        self.waiting, self.done = list(needs), set[str]()
        self.failed: dict[str, list[str]] = {}  # and what is not run for each

    def ready(self) -> list[str]:
        """What may start now."""
        return [stage for stage in self.waiting if self.needs[stage] <= self.done]

    def begin(self, stage: str) -> None:
        self.waiting.remove(stage)

    def defer(self, stage: str) -> None:
        """Take back that it began."""
        self.waiting = [one for one in self.needs if one in {*self.waiting, stage}]

    def finish(self, stage: str) -> None:
        self.done.add(stage)

    def fail(self, stage: str) -> None:
        self.failed[stage] = self.dependents(stage)
        self.waiting = [one for one in self.waiting if one not in self.failed[stage]]

    def dependents(self, stage: str) -> list[str]:
        """What depends on `stage`, directly or not."""
        lost = {stage}
        for one, others in self.needs.items():  # after all it depends on, in this order
            if others & lost:
                lost.add(one)
        return [one for one in self.needs if one in lost - {stage}]


def left(stages: Mapping[str, float], seconds: Mapping[str, float], jobs: int) -> float | None:
    """Seconds until all are done, where something is known; `stages`: how long each has been running, 0 where it waits.

    A stage takes what it took the last time; else the mean of its kind, else of all.
    """
    if not seconds:
        return None
    kinds: dict[str, list[float]] = {}
    for stage, took in seconds.items():
        kinds.setdefault(kind(stage), []).append(took)
    everything = sum(seconds.values()) / len(seconds)

    def expected(stage: str) -> float:
        own = kinds.get(kind(stage), [everything])
        return seconds.get(stage, sum(own) / len(own))

    rest = [max(0.0, expected(stage) - gone) for stage, gone in stages.items()]
    return max(sum(rest) / jobs, max(rest, default=0.0))
