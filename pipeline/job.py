"""One stage in a process of its own, forked where DVC is imported: its words go to a file, its end is certain.

1. The process has a session of its own, so that a terminal's Ctrl-C reaches the runner alone, which ends its jobs.
2. Told to end, or without its runner, however that ended, a job ends its commands and lets DVC clean up behind them.
   What DVC is recording just then is recorded whole.
3. Where the process itself is killed, its commands are ended from outside.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path

import psutil

from captioning.base.redaction import redact

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FORK = multiprocessing.get_context("fork")
TICK = 0.2  # seconds
GRACE = 10.0  # seconds from a command's SIGTERM to its SIGKILL
DONE, FAILED, UNCHANGED, BUSY = 0, 1, 3, 4  # exit status
EXCERPT = 15  # lines


class Busy(Exception):
    """Somebody else is at work on what a stage needs or writes."""


class Job:
    """A stage under way. `work` returns whether it ran, and raises where it failed: `Busy` where it may later on."""

    def __init__(self, stage: str, place: int, work: Callable[[], bool], log: Path, environment: Mapping[str, str]):
        self.stage, self.place, self.log, self.begun = stage, place, log, time.monotonic()
        self.process = FORK.Process(target=_work, args=(work, log, environment), name=stage)
        self.process.start()

    @property
    def number(self) -> int:
        return self.process.pid or 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def end(self) -> None:
        """Tell it to end its commands and itself."""
        with suppress(ProcessLookupError):
            os.kill(self.number, signal.SIGTERM)

    def kill(self) -> None:
        """End all of it at once."""
        with suppress(psutil.Error):
            found = psutil.Process(self.number)
            for one in (found, *found.children(recursive=True)):
                with suppress(psutil.Error):
                    one.kill()

    def status(self) -> int:
        """Its exit status, once it has ended; nothing of it goes on then."""
        self.process.join()
        status = self.process.exitcode or 0
        if status < 0:
            end_group(self.number)
        return status


def ended(jobs: Collection[Job], seconds: float) -> list[Job]:
    """The jobs that have ended; waits for the first, or for so many seconds."""
    if not jobs:
        time.sleep(seconds)
    ready = wait([job.process.sentinel for job in jobs], seconds) if jobs else []
    return [job for job in jobs if job.process.sentinel in ready]


def _work(work: Callable[[], bool], log: Path, environment: Mapping[str, str]) -> None:
    """What the process does."""
    os.setsid()
    told = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: told.set())
    sys.stdout = sys.stderr = log.open("w", buffering=1, encoding="utf-8")
    for stream in (1, 2):
        os.dup2(sys.stdout.fileno(), stream)
    os.environ.update(environment)
    threading.Thread(target=_end_commands, args=(told,), daemon=True).start()
    try:
        status = DONE if work() else UNCHANGED
    except Busy as reason:
        print(redact(str(reason)), file=sys.stderr)
        status = BUSY
    except Exception as error:
        print(redact(f"ERROR: {error}"), file=sys.stderr)
        status = FAILED
    sys.exit(status)


def _end_commands(told: threading.Event) -> None:
    """Once told, or alone, end whatever this process has started or starts yet."""
    runner = multiprocessing.parent_process()
    assert runner is not None
    while not told.is_set() and not wait([runner.sentinel], TICK):
        pass
    end(lambda: psutil.Process().children(recursive=True), lambda: False)


def end(processes: Callable[[], Iterable[psutil.Process]], gone: Callable[[], bool]) -> None:
    """SIGTERM to each of `processes`, once; SIGKILL to those that are there after `GRACE`; until they are `gone`."""
    asked, deadline = set[psutil.Process](), time.monotonic() + GRACE
    while not gone():
        for one in processes():
            with suppress(psutil.Error):
                if time.monotonic() > deadline:
                    one.kill()
                elif one not in asked:
                    asked.add(one)
                    one.terminate()
        time.sleep(TICK)


def end_group(group: int) -> None:
    """End what is left of a group of processes whose first was killed."""
    end(lambda: _members(group), lambda: not _members(group))


def _members(group: int) -> list[psutil.Process]:
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getpgid(one.pid) == group and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one)
    return found


def excerpt(log: Path) -> Sequence[str]:
    """A stage's own `error: …` whole, or else the last lines it said."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    told = [place for place, line in enumerate(lines) if line.startswith("error: ")]
    if not told:
        return lines[-EXCERPT:]
    return [line for line in lines[told[0] :] if not line.startswith("ERROR: failed to run")]
