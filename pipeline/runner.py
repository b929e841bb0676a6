"""Stages of a pipeline side by side, each in a job of its own, and what is told of them meanwhile."""

import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from tqdm import tqdm

from captioning.base.paths import LOGS
from pipeline.job import BUSY, DONE, SIGNALS, TICK, UNCHANGED, Busy, Job, ended, excerpt
from pipeline.schedule import Schedule, left
from pipeline.shares import confine, own_cores, share_cores, threads_of_all

if TYPE_CHECKING:
    from pipeline.reproduction import Pipeline

SECONDS = LOGS / "seconds.json"  # what each stage took the last time
LONGEST = 1e8  # seconds, three years: no stage took more
PAUSE = 2.0  # seconds, until a stage is tried again that another DVC holds up


class Runner:
    """Stages of a pipeline, `jobs` at a time."""

    def __init__(self, pipeline: "Pipeline", jobs: int, shares: Callable[[], Sequence[dict[str, str]]]) -> None:
        """`shares`: what each job's environment says of GPUs, asked where one starts."""
        self.pipeline, self.jobs, self.shares = pipeline, jobs, shares
        self.schedule = Schedule(pipeline.needs)
        self.environments: Sequence[dict[str, str]] = ()
        self.running: list[Job] = []
        self.signals: list[int] = []
        self.cores = own_cores()
        self.seconds = remembered()
        self.ran, self.waits = 0, ""
        self.busy: dict[str, float] = {}  # stages that another DVC held up, and when they are tried again
        self.line = tqdm(bar_format="{desc}", disable=None, leave=False, file=sys.stderr, dynamic_ncols=True)

    def run(self) -> int:
        """Everything; the exit status."""
        before = {number: signal.signal(number, lambda given, _: self.signals.append(given)) for number in SIGNALS}
        try:
            while not self.signals and (self.schedule.waiting or self.running):
                self._start()
                for job in ended(self.running, TICK) if self.running or self.schedule.waiting else ():
                    self._end(job)
                self._show()
            return self._stop() if self.signals else self._conclude()
        finally:
            self.line.close()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start(self) -> None:
        """Start what may start and changed; what did not change is done."""
        while len(self.running) < self.jobs and not self.signals:
            stage = self._next()
            if stage is None:
                return
            self.environments = self.environments or self.shares()
            place = min(set(range(self.jobs)) - {job.place for job in self.running})
            environment = threads_of_all(self.cores) | self.environments[place]
            log = LOGS / f"{stage.replace('/', '-').replace(':', '-')}.log"
            self.schedule.begin(stage)
            self.running.append(Job(stage, place, partial(_reproduce, self.pipeline, stage), log, environment))
            self._tell("" if stage in self.busy else f"begun: {stage}")
            self._confine()

    def _next(self) -> str | None:
        """The first stage in DVC's order whose turn it is and that changed."""
        from dvc.lock import LockError

        while ready := [one for one in self.schedule.ready() if self.busy.get(one, 0.0) <= time.monotonic()]:
            try:
                unchanged, changed = self.pipeline.until_changed(ready, lambda: bool(self.signals))
            except LockError as error:
                self._wait(" ".join(str(error).split()))
                return None
            self.waits = ""
            for stage in unchanged:
                self.schedule.begin(stage)
                self.schedule.finish(stage)
            if changed or not unchanged:
                return changed
        return None

    def _wait(self, reason: str) -> None:
        if not self.running and not self.waits:
            self._tell(f"waiting for another DVC: {reason}")
        self.waits = reason

    def _end(self, job: Job) -> None:
        """Record what became of a job, and tell it."""
        status = job.status()
        self.running.remove(job)
        took = tqdm.format_interval(job.seconds)
        if status in (DONE, UNCHANGED):
            self.schedule.finish(job.stage)
            self._remember(job, status)
            self._tell(f"done: {job.stage} in {took}; {self._rest()}")
        elif status == BUSY:
            self._defer(job)
        else:
            self.schedule.fail(job.stage)
            how = f", ended by {signal.Signals(-status).name}" if status < 0 else ""
            self._tell("\n    ".join([f"failed: {job.stage} after {took}{how} ({job.log})", *excerpt(job.log)]))
        self._confine()

    def _defer(self, job: Job) -> None:
        """Try it again after a while."""
        self.schedule.defer(job.stage)
        if job.stage not in self.busy:
            self._tell(f"waiting for another DVC: {job.stage}: {' '.join(excerpt(job.log))}")
        self.busy[job.stage] = time.monotonic() + PAUSE

    def _remember(self, job: Job, status: int) -> None:
        if status == DONE:
            self.ran += 1
            self.seconds[job.stage] = round(job.seconds, 1)
            with suppress(OSError):  # only the time that is left is guessed from it
                LOGS.mkdir(parents=True, exist_ok=True)  # `make clean` may have been there
                SECONDS.write_text(json.dumps(self.seconds, indent=1), encoding="utf-8")

    def _confine(self) -> None:
        """Give each job its share of the cores, and one that is alone all of them."""
        shares = share_cores(self.cores, len(self.running))
        for job, cores in zip(sorted(self.running, key=lambda one: one.place), shares, strict=True):
            confine(job.number, cores)

    def _stop(self) -> int:
        """End what is under way; a second signal kills it."""
        self._tell(f"ending {', '.join(job.stage for job in self.running)}" if self.running else "")
        while self.running:
            for job in self.running:
                job.kill() if len(self.signals) > 1 else job.end()
            for job in ended(self.running, TICK):
                job.status()
                self.running.remove(job)
        self._tell(f"interrupted; what was done is recorded, `make repro JOBS={self.jobs}` goes on from there")
        return 128 + self.signals[0]

    def _conclude(self) -> int:
        failed = self.schedule.failed
        for stage, lost in failed.items():
            self._tell(f"failed: {stage}" + (f"; not run for it: {', '.join(lost)}" if lost else ""))
        if failed:
            self._tell(f"{len(self.schedule.done)} of {len(self.pipeline.needs)} stages are up to date; with the cause "
                       f"mended, `make repro JOBS={self.jobs}` runs the others alone")  # fmt: skip
            return 1
        ran = "1 stage ran" if self.ran == 1 else f"{self.ran} stages ran"
        self._tell(ran if self.ran else "Data and pipelines are up to date.")
        return 0

    def _show(self) -> None:
        """What is under way, and the rest, in a terminal's last line."""
        under_way = ", ".join(f"{job.stage} {tqdm.format_interval(job.seconds)}" for job in self.running)
        self.line.set_description_str("; ".join(part for part in (under_way, self._rest()) if part))

    def _rest(self) -> str:
        stages = dict.fromkeys(self.schedule.waiting, 0.0) | {job.stage: job.seconds for job in self.running}
        seconds = left(stages, self.seconds, self.jobs)
        return f"{len(stages)} to go" + ("" if seconds is None else f", about {tqdm.format_interval(seconds)}")

    def _tell(self, line: str) -> None:
        if line:
            self.line.write(line, file=sys.stderr)


def _reproduce(pipeline: "Pipeline", stage: str) -> bool:
    """What a job does. Raises `Busy` where another DVC holds the stage up."""
    from dvc.lock import LockError

    try:
        return pipeline.reproduce(stage)
    except LockError as error:
        raise Busy(error) from None


def remembered() -> dict[str, float]:
    """What is told in `SECONDS`, as far as it is seconds."""
    try:
        told = json.loads(SECONDS.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    stages = told.items() if isinstance(told, dict) else ()
    return {stage: took for stage, took in stages if isinstance(took, int | float) and 0 <= took < LONGEST}
