"""Run the stages of a pipeline side by side, each in its own job, and report their progress."""

import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from tqdm import tqdm

from captioning.runtime.paths import LOGS
from pipeline.job import BUSY, DONE, SIGNALS, TICK, UNCHANGED, Busy, Job, read_error, wait_for_ended
from pipeline.schedule import Schedule, estimate_seconds

if TYPE_CHECKING:
    from pipeline.reproduction import Pipeline

DURATIONS = LOGS / "seconds.json"  # how long each stage took the last time
PAUSE = 2.0  # seconds until a stage that another DVC blocks is tried again


class Runner:
    """The stages of a pipeline, up to `jobs` at a time."""

    def __init__(self, pipeline: "Pipeline", jobs: int, share_gpus: Callable[[], Sequence[dict[str, str]]]) -> None:
        """`share_gpus` returns the environment variables of each job; it is called if a stage must run."""
        self.pipeline, self.jobs, self.share_gpus = pipeline, jobs, share_gpus
        self.schedule = Schedule(pipeline.needs)
        self.environments: Sequence[dict[str, str]] = ()
        self.running: list[Job] = []
        self.signals: list[int] = []
        self.durations = read_durations()
        self.ran, self.is_waiting = 0, False
        self.busy: dict[str, float] = {}  # stage that another DVC blocks -> when to try it again
        self.line = tqdm(bar_format="{desc}", disable=None, leave=False, file=sys.stderr, dynamic_ncols=True)

    def run(self) -> int:
        """Run all stages, and return the exit status."""
        handlers = {number: signal.signal(number, lambda sent, _: self.signals.append(sent)) for number in SIGNALS}
        try:
            while not self.signals and (self.running or self.schedule.waiting):
                self._start_jobs()
                if self.running or self.schedule.waiting:
                    for job in wait_for_ended(self.running, TICK):
                        self._end(job)
                self._show_progress()
            return self._stop() if self.signals else self._conclude()
        finally:
            self.line.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _start_jobs(self) -> None:
        while len(self.running) < self.jobs and (stage := self._next_changed()):
            self.environments = self.environments or self.share_gpus()
            slot = min(set(range(self.jobs)) - {job.slot for job in self.running})
            log = LOGS / f"{stage.replace('/', '-').replace(':', '-')}.log"
            self.schedule.start(stage)
            self.running.append(
                Job(stage, slot, partial(_reproduce, self.pipeline, stage), log, self.environments[slot])
            )
            if stage not in self.busy:
                self._print(f"started: {stage}")

    def _next_changed(self) -> str | None:
        """Return the next stage to run, in DVC's order, and pass over those that did not change."""
        from dvc.lock import LockError

        while not self.signals:
            stages = [stage for stage in self.schedule.ready() if self.busy.get(stage, 0.0) <= time.monotonic()]
            try:
                if not stages or self.pipeline.is_changed(stages[0]):
                    self.is_waiting = False
                    return stages[0] if stages else None
            except LockError as error:
                if not self.running and not self.is_waiting:
                    self._print(f"waiting for another DVC: {' '.join(str(error).split())}")
                    self.is_waiting = True
                return None
            self.schedule.finish(stages[0])
        return None

    def _end(self, job: Job) -> None:
        """Report how a job ended."""
        status = job.status()
        self.running.remove(job)
        duration = tqdm.format_interval(job.seconds)
        if status in (DONE, UNCHANGED):
            self.schedule.finish(job.stage)
            if status == DONE:
                self.ran += 1
                self._save_duration(job)
            self._print(f"finished: {job.stage} in {duration}; {self._describe_remaining()}")
        elif status == BUSY:
            self.schedule.defer(job.stage)
            if job.stage not in self.busy:
                self._print(f"waiting for another DVC: {job.stage}: {' '.join(read_error(job.log))}")
            self.busy[job.stage] = time.monotonic() + PAUSE
        else:
            self.schedule.fail(job.stage)
            cause = f", ended by {signal.Signals(-status).name}" if status < 0 else ""
            heading = f"failed: {job.stage} after {duration}{cause} ({job.log})"
            self._print("\n    ".join([heading, *read_error(job.log)]))

    def _save_duration(self, job: Job) -> None:
        self.durations[job.stage] = round(job.seconds, 1)
        with suppress(OSError):  # only the ETA depends on it
            LOGS.mkdir(parents=True, exist_ok=True)  # `make clean` may have removed it
            DURATIONS.write_text(json.dumps(self.durations, indent=1), encoding="utf-8")

    def _stop(self) -> int:
        """End the running jobs; a second signal kills them."""
        if self.running:
            self._print(f"ending {', '.join(job.stage for job in self.running)}")
        while self.running:
            for job in self.running:
                job.kill() if len(self.signals) > 1 else job.terminate()
            for job in wait_for_ended(self.running, TICK):
                job.status()
                self.running.remove(job)
        self._print(f"interrupted; finished stages are recorded, `make repro JOBS={self.jobs}` goes on from there")
        return 128 + self.signals[0]

    def _conclude(self) -> int:
        for stage, blocked in self.schedule.failed.items():
            self._print(f"failed: {stage}" + (f"; not run because of it: {', '.join(blocked)}" if blocked else ""))
        if self.schedule.failed:
            counts = f"{len(self.schedule.finished)} of {len(self.pipeline.needs)} stages are up to date"
            self._print(f"{counts}; fix the cause, then `make repro JOBS={self.jobs}` runs only the others")
            return 1
        ran = f"{self.ran} {'stage' if self.ran == 1 else 'stages'} ran"
        self._print(ran if self.ran else "Data and pipelines are up to date.")
        return 0

    def _show_progress(self) -> None:
        """Show the running jobs and the ETA in the last line of a terminal."""
        jobs = (f"{job.stage} {tqdm.format_interval(job.seconds)}" for job in self.running)
        self.line.set_description_str("; ".join([", ".join(jobs), self._describe_remaining()]))

    def _describe_remaining(self) -> str:
        stages = dict.fromkeys(self.schedule.waiting, 0.0) | {job.stage: job.seconds for job in self.running}
        seconds = estimate_seconds(stages, self.durations, self.jobs)
        return f"{len(stages)} to go" + ("" if seconds is None else f", about {tqdm.format_interval(seconds)}")

    def _print(self, line: str) -> None:
        self.line.write(line, file=sys.stderr)


def _reproduce(pipeline: "Pipeline", stage: str) -> bool:
    """Do the work of a job. Raises `Busy` if another DVC blocks the stage."""
    from dvc.lock import LockError

    try:
        return pipeline.reproduce(stage)
    except LockError as error:
        raise Busy(error) from None


def read_durations() -> dict[str, float]:
    """Return how long each stage took the last time, in seconds, as far as that was saved."""
    try:
        durations = json.loads(DURATIONS.read_bytes())
        return {name: float(seconds) for name, seconds in durations.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # only the ETA depends on it
        return {}
