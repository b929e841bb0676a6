"""`make repro JOBS=2`: what `dvc repro` does, with stages that do not need one another side by side.

    python -m captioning.jobs --jobs 2                  everything
    python -m captioning.jobs --jobs 2 evaluate         what `dvc repro evaluate` looks at

dvc.lock comes out as `dvc repro --keep-going` writes it, byte for byte. What a stage says goes to `.cache/logs`, and
where it fails its error is shown.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from tqdm import tqdm

from captioning.job import DONE, SIGNALS, TICK, UNCHANGED, Job, ended, excerpt
from captioning.lockfile import mend
from captioning.params import load_params
from captioning.places import LOGS
from captioning.runlog import UserError
from captioning.schedule import Schedule, left
from captioning.secrets import install, redacted
from captioning.shares import confine, own_cores, share_cores, share_gpus, threads_of_all

if TYPE_CHECKING:
    from captioning.reproduction import Pipeline

SECONDS = LOGS / "seconds.json"  # what each stage took the last time


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
        self.seconds = _remembered()
        self.ran, self.waits = 0, ""
        self.line = tqdm(bar_format="{desc}", disable=None, leave=False, file=sys.stderr, dynamic_ncols=True)

    def run(self) -> int:
        """Everything; the exit status."""
        before = {number: signal.signal(number, lambda given, _: self.signals.append(given)) for number in SIGNALS}
        try:
            while not self.signals and (self.schedule.waiting or self.running):
                self._start()
                for job in ended(self.running, TICK) if self.running or self.waits else ():
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
            self.running.append(Job(stage, place, partial(self.pipeline.reproduce, stage), log, environment))
            self._tell(f"begun: {stage}")
            self._confine()

    def _next(self) -> str | None:
        """The first stage in DVC's order whose turn it is and that changed."""
        from dvc.lock import LockError

        while ready := self.schedule.ready():
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
        else:
            self.schedule.fail(job.stage)
            how = f", ended by {signal.Signals(-status).name}" if status < 0 else ""
            self._tell("\n    ".join([f"failed: {job.stage} after {took}{how} ({job.log})", *excerpt(job.log)]))
        self._confine()

    def _remember(self, job: Job, status: int) -> None:
        if status == DONE:
            self.ran += 1
            self.seconds[job.stage] = round(job.seconds, 1)
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


def _remembered() -> dict[str, float]:
    try:
        return dict(json.loads(SECONDS.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names; the exit status."""
    install()
    try:
        return run(parser().parse_args(arguments))
    except UserError as error:
        print(redacted(f"error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted before anything ran", file=sys.stderr)
        return 130


def run(chosen: argparse.Namespace) -> int:
    """Everything between the command line and the exit status. Raises `UserError`."""
    jobs = count(chosen.jobs)
    mend()
    if jobs == 1:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "dvc", "repro", *chosen.targets])
    params = load_params()
    tqdm.monitor_interval = 0  # no thread beside the one that forks
    from captioning.reproduction import Pipeline  # imports DVC

    LOGS.mkdir(parents=True, exist_ok=True)
    return Runner(Pipeline(chosen.targets), jobs, lambda: share_gpus(params, jobs)).run()


def count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise UserError(f"JOBS: {text!r} is no whole number from 1 on; say how many stages may run at a time, JOBS=2")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m captioning.jobs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("targets", nargs="*", metavar="TARGET", help="stages, as of `dvc repro` (default: all)")
    made.add_argument("--jobs", default="1", metavar="N", help="stages at a time; 1 is plain `dvc repro` (default)")
    return made


if __name__ == "__main__":
    sys.exit(main())
