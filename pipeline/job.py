"""Run one stage in a forked process, whose output goes to a file and whose end is certain.

1. The process has its own session, so that Ctrl-C in a terminal reaches only the runner, which then ends its jobs.
2. On SIGTERM, or when its runner has gone, a job ends its commands and lets DVC clean up and finish its record.
3. If the job itself is killed, the runner ends its commands.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path

import psutil

from captioning.runtime.redaction import redact

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FORK = multiprocessing.get_context("fork")  # the job needs no second import of DVC
TICK = 0.2  # seconds
GRACE = 10.0  # seconds from a command's SIGTERM to its SIGKILL
DONE, FAILED, UNCHANGED, BUSY = 0, 1, 3, 4  # exit status
ERROR_LINES = 15


class Busy(Exception):
    """Another DVC works on what a stage needs or writes."""


class Job:
    """A running stage. `work` returns whether the stage ran, and raises `Busy` if it must be tried again."""

    def __init__(self, stage: str, slot: int, work: Callable[[], bool], log: Path, environment: Mapping[str, str]):
        self.stage, self.slot, self.log, self.start = stage, slot, log, time.monotonic()
        self.process = FORK.Process(target=_run, args=(work, log, environment), name=stage)
        self.process.start()
        assert self.process.pid is not None
        self.pid: int = self.process.pid

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def terminate(self) -> None:
        """Ask the job to end its commands and itself."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the job and all that it started."""
        with suppress(psutil.Error):
            job = psutil.Process(self.pid)
            for process in (job, *job.children(recursive=True)):
                with suppress(psutil.Error):
                    process.kill()

    def status(self) -> int:
        """Return the exit status once the job and its commands have ended."""
        self.process.join()
        status = self.process.exitcode or 0
        if status < 0:
            end_group(self.pid)
        return status


def wait_for_ended(jobs: Collection[Job], seconds: float) -> list[Job]:
    """Wait up to `seconds` until a job ends, and return the jobs that have ended."""
    if not jobs:
        time.sleep(seconds)
        return []
    ready = wait([job.process.sentinel for job in jobs], seconds)
    return [job for job in jobs if job.process.sentinel in ready]


def _run(work: Callable[[], bool], log: Path, environment: Mapping[str, str]) -> None:
    os.setsid()
    must_end = threading.Event()
    for number in SIGNALS:
        signal.signal(number, lambda *_: must_end.set())
    sys.stdout = sys.stderr = log.open("w", buffering=1, encoding="utf-8")
    for descriptor in (1, 2):
        os.dup2(sys.stdout.fileno(), descriptor)
    os.environ.update(environment)
    threading.Thread(target=_end_commands, args=(must_end,), daemon=True).start()
    try:
        status = DONE if work() else UNCHANGED
    except Busy as reason:
        print(redact(str(reason)))
        status = BUSY
    except Exception as error:
        print(redact(f"ERROR: {error}"))
        status = FAILED
    sys.exit(status)


def _end_commands(must_end: threading.Event) -> None:
    """Wait until this job must end or its runner has gone; then end each command that it has started or starts yet."""
    runner = multiprocessing.parent_process()
    assert runner is not None
    while not must_end.is_set() and not wait([runner.sentinel], TICK):
        pass
    asked, deadline = set[psutil.Process](), time.monotonic() + GRACE
    while True:  # this thread ends with the job
        for command in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if time.monotonic() > deadline:
                    command.kill()
                elif command not in asked:  # a second SIGTERM would interrupt its cleanup
                    asked.add(command)
                    command.terminate()
        time.sleep(TICK)


def end_group(group: int) -> None:
    """End the rest of a group of processes whose first process was killed."""
    with suppress(ProcessLookupError):  # no process remains
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(group, number)
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline and _is_alive(group):
                time.sleep(TICK)


def _is_alive(group: int) -> bool:
    """Return whether a process of the group works; zombies, which no parent has awaited, do not."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def read_error(log: Path) -> Sequence[str]:
    """Return a stage's own `error: …` from its log, or else the last lines."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if not starts:
        return lines[-ERROR_LINES:]
    return [line for line in lines[starts[0] :] if not line.startswith("ERROR: failed to run")]
