"""Save what a run has computed, so that an interrupted run continues to the bytes of an undisturbed one.

1. A state is a folder that appears by rename and names the SHA-256 of its files; an incomplete one is skipped.
2. It is in `.cache/resume/<stage>/<fingerprint>`, outside the outputs, which DVC deletes before a run. The fingerprint
   covers all that the stage depends on. `dvc exp run --temp` uses the folder of the main checkout.
3. It exists until `report` runs, when DVC has recorded all stages: a kill before the record loses nothing.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from filelock import AcquireReturnProxy, FileLock, Timeout

from captioning.base.files import atomic_folder
from captioning.base.hashes import file_hashes
from captioning.runtime.inputs import BY_HAND, FINGERPRINT, require_unchanged_inputs
from captioning.runtime.paths import RESUME, RUN_LOCK, main_folder
from captioning.runtime.progress import progress

T = TypeVar("T")
KEPT_STATES = 2  # of a run: the newest, and the one before
KEPT_RUNS = 2  # interrupted runs of each stage with other fingerprints
HASHES, FINISHED = "whole.json", "finished"


def run_folder() -> Path:
    """Return the folder of this run's states."""
    fingerprint = os.environ.get(FINGERPRINT, f"{BY_HAND}/{os.getpid()}")
    return main_folder(RESUME) / fingerprint


@contextmanager
def exclusive_run_folder(is_main: bool = True, barrier: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Lock this run's folder, after an identical run has released it. Raises `UserError` if an input changed. Of
    several processes, the main one holds the lock; the others wait at `barrier`."""
    folder = run_folder()
    if not is_main:
        barrier()
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _lock_run(folder):
        others = (path for path in folder.parent.iterdir() if path.is_dir() and path != folder)
        for old in sorted(others, key=lambda path: path.stat().st_mtime)[:-KEPT_RUNS]:
            _remove_run(old)
        barrier()
        yield folder
        require_unchanged_inputs()  # before the outputs are written


def _lock_run(folder: Path) -> AcquireReturnProxy:
    lock = FileLock(folder / RUN_LOCK)
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        print(f"{folder}: waiting for an identical run", file=sys.stderr)
        return lock.acquire()


def mark_finished() -> None:
    """Mark this run's states as no longer needed; remove those of a command by hand, which no other run can find."""
    folder = run_folder()
    if folder.parent.name == BY_HAND:
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.exists():
        (folder / FINISHED).touch()


def remove_finished_runs() -> None:
    """Remove the states of finished stages once DVC has recorded these; states that another run uses stay."""
    for marker in run_folder().parents[1].glob(f"*/*/{FINISHED}"):
        _remove_run(marker.parent)


def _remove_run(folder: Path) -> None:
    with suppress(Timeout), FileLock(folder / RUN_LOCK, timeout=0):
        shutil.rmtree(folder, ignore_errors=True)


class Results:
    """Results of consecutive pieces of work, one JSON line each in a file; what follows an incomplete line is lost."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file, self.results, self.ends = path.open("a+b"), list[Any](), [0]  # ends: of each line, in bytes
        self.file.seek(0)
        with suppress(ValueError):
            for line in self.file:
                self.results.append(json.loads(line if line.endswith(b"\n") else b""))
                self.ends.append(self.ends[-1] + len(line))
        self.truncate(len(self.results))

    def truncate(self, count: int) -> None:
        self.file.truncate(self.ends[count])
        del self.results[count:], self.ends[count + 1 :]

    def map(self, items: Sequence[T], function: Callable[[T], Any], label: str | None = None) -> list[Any]:
        """Apply `function` to the items that have no result yet, and return all results; `label` shows progress."""
        remaining = items[len(self.results) :]
        for item in remaining if label is None else progress(remaining, len(remaining), label):
            self.add(function(item))
        return self.results

    def add(self, result: Any) -> None:
        """Save one more result. Raises `UserError` if an input changed."""
        require_unchanged_inputs()
        self.ends.append(self.ends[-1] + self.file.write(json.dumps(result).encode() + b"\n"))
        self.file.flush()
        self.results.append(result)


class States:
    """States of one training in `folder`, by step; `interval`: seconds between two."""

    def __init__(self, folder: Path, interval: float) -> None:
        self.folder, self.interval, self.last = folder, interval, time.monotonic()

    def is_due(self) -> bool:
        return time.monotonic() - self.last >= self.interval

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Save a state, whose files `write` puts into a folder. Raises `UserError` if an input changed."""
        require_unchanged_inputs()
        with atomic_folder(self.state_folder(step)) as partial:
            write(partial)
            (partial / HASHES).write_text(json.dumps(file_hashes(partial)), encoding="utf-8")
        for old in self.steps()[:-KEPT_STATES]:
            shutil.rmtree(self.state_folder(old), ignore_errors=True)
        self.last = time.monotonic()

    def steps(self) -> list[int]:
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def intact_steps(self) -> list[int]:
        """Return the steps with a complete state, ascending, and report the others."""
        intact = [step for step in self.steps() if _is_intact(self.state_folder(step))]
        for step in set(self.steps()) - {*intact}:
            print(f"{self.state_folder(step)}: incomplete, skipped", file=sys.stderr)
        return intact

    def open_state(self, step: int) -> Path:
        """Return the folder of a state, and report that the training continues from it."""
        print(f"going on from step {step} of an interrupted run", file=sys.stderr)
        self.last = time.monotonic()
        return self.state_folder(step)

    def state_folder(self, step: int) -> Path:
        return self.folder / f"step-{step}"


def _is_intact(folder: Path) -> bool:
    try:
        expected = json.loads((folder / HASHES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return {name: digest for name, digest in file_hashes(folder).items() if name != HASHES} == expected
