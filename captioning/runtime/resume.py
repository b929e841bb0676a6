"""What an interrupted run leaves, so that the next goes on from it to the bytes of an undisturbed one.

1. A state is a folder that appears by rename and names the SHA-256 of its files; a torn one is passed over.
2. It stands in `.cache/resume/<stage>/<fingerprint>`, outside DVC's outputs, which DVC deletes before a run. The
   fingerprint is of everything the stage depends on (runtime/inputs.py), so no other configuration finds it. Runs of
   `dvc exp run --temp` use the main checkout's folder.
3. It stays when the outputs are there, until DVC has recorded them: whoever is killed in between has lost nothing.
   `report`, which runs when all else is recorded, removes it; a stage that is run again in spite of its record begins
   anew.
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

from filelock import FileLock, Timeout

from captioning.base.files import atomic_folder
from captioning.base.hashes import file_hashes
from captioning.base.paths import RESUME, RUN_LOCK
from captioning.runtime.inputs import BY_HAND, FINGERPRINT, require_unchanged_inputs
from captioning.runtime.progress import progress

T = TypeVar("T")
ROOT = "DVC_ROOT"  # environment of a stage: the main checkout
KEPT_STATES = 2  # of a run, kept: the newest, and one before it
KEPT_RUNS = 2  # interrupted runs with other fingerprints that are kept of each stage
HASHES, FINISHED = "whole.json", "finished"


def run_folder() -> Path:
    """This run's folder."""
    return _root() / RESUME / os.environ.get(FINGERPRINT, f"{BY_HAND}/{os.getpid()}")


def _root() -> Path:
    return Path(os.environ.get(ROOT, "."))


@contextmanager
def exclusive_run_folder(is_main: bool = True, barrier: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """`place()` for this run alone; one beside it that does the same is waited for. Of several processes that do it
    together the first holds it for all, and `wait` is what lets them meet."""
    if not is_main:
        barrier()
        yield run_folder()
        return
    with _locked(run_folder()):
        remove_old_runs(run_folder())
        if (run_folder() / FINISHED).exists() and is_recorded(run_folder().parent.name):
            _empty(run_folder())
        barrier()
        yield run_folder()
        require_unchanged_inputs()  # before an output is written


def mark_finished() -> None:
    """The outputs are there. What a command by hand has left goes; it cannot be found again."""
    if run_folder().parent.name == BY_HAND:
        shutil.rmtree(run_folder(), ignore_errors=True)
    elif run_folder().exists():
        (run_folder() / FINISHED).touch()


def remove_finished_runs() -> None:
    """Remove what finished stages have left, when all of them are recorded; what another run holds stays."""
    for marker in (_root() / RESUME).glob(f"*/*/{FINISHED}"):
        _remove(marker.parent)


def is_recorded(stage: str) -> bool:
    """Whether dvc.lock holds `stage` with its inputs of today, and DVC's cache its outputs."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo, repo.lock:
            found = repo.stage.load_one(name=stage)
            cached = not any(out.changed_cache() for out in found.outs if out.use_cache)
            return not found.changed_deps() and cached
    except DvcException:
        return False


def _empty(folder: Path) -> None:
    for one in folder.iterdir():
        if one.is_dir():
            shutil.rmtree(one)
        elif one.name != RUN_LOCK:
            one.unlink()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold `folder` alone; one whose owner removed it while this process waited is made anew."""
    told = False
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / RUN_LOCK)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            if not told:
                print(f"{folder}: another run does the same; waiting for it", file=sys.stderr)
            told = True
            continue
        if (folder / RUN_LOCK).exists():
            break
        lock.release()
    try:
        yield
    finally:
        lock.release()


def remove_old_runs(folder: Path) -> None:
    """Remove the oldest runs of this folder's stage, unless they are under way."""
    others = sorted((one for one in folder.parent.iterdir() if one.is_dir() and one != folder), key=_age)
    for other in others[:-KEPT_RUNS]:
        _remove(other)


def _remove(run: Path) -> None:
    """Remove a run's folder, unless it is under way."""
    with suppress(Timeout), FileLock(run / RUN_LOCK, timeout=0):
        shutil.rmtree(run, ignore_errors=True)


def _age(folder: Path) -> float:
    return folder.stat().st_mtime


class Results:
    """Results of one piece of work after another in a file, a JSON line each; a torn last one is dropped."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a+b")
        self.results: list[Any] = []
        self.file.seek(0)
        whole = 0
        for line in self.file:
            try:
                self.results.append(json.loads(line if line.endswith(b"\n") else b""))
            except ValueError:
                break
            whole += len(line)
        self.file.truncate(whole)

    def truncate(self, number: int) -> None:
        """Forget all but the first `number`."""
        if number < len(self.results):
            self.file.truncate(0)
            first, self.results = self.results[:number], []
            for result in first:
                self.add(result)

    def map(self, work: Sequence[T], do: Callable[[T], Any], what: str | None = None) -> list[Any]:
        """Add what `do` makes of each piece of `work` that has no result yet; all results. `what`: of a bar."""
        rest = work[len(self.results) :]
        for piece in rest if what is None else progress(rest, len(rest), what):
            self.add(do(piece))
        return self.results

    def add(self, result: Any) -> None:
        """Keep one more. Raises `UserError` where an input has moved."""
        require_unchanged_inputs()
        self.file.write(json.dumps(result).encode() + b"\n")
        self.file.flush()
        self.results.append(result)


def states(folder: Path, every: float | None) -> "States | None":
    """States in `folder`, `every` so many seconds; None: none are kept."""
    return None if every is None else States(folder, every)


class States:
    """Whole states of one work in `folder`, by step; `every`: seconds from one to the next."""

    def __init__(self, folder: Path, every: float) -> None:
        self.folder, self.every, self.last = folder, every, time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time for the next."""
        return time.monotonic() - self.last >= self.every

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Keep a state, whose files `write` puts into the folder it is given; older ones go. Raises `UserError` where
        an input has moved: what was reckoned from is not known."""
        require_unchanged_inputs()
        with atomic_folder(self.state_folder(step)) as partial:
            write(partial)
            (partial / HASHES).write_text(json.dumps(file_hashes(partial)), encoding="utf-8")
            for file in (*partial.iterdir(), partial):
                _to_disk(file)
        _to_disk(self.folder)
        for old in self.steps()[:-KEPT_STATES]:
            shutil.rmtree(self.state_folder(old), ignore_errors=True)
        self.last = time.monotonic()

    def steps(self) -> list[int]:
        """Steps with a state, ascending, whole or not."""
        names = (one.name.removeprefix("step-") for one in self.folder.glob("step-*"))
        return sorted(int(name) for name in names if name.isdigit())

    def intact_steps(self) -> list[int]:
        """Steps with a whole state, ascending; says which are not."""
        found = []
        for step in self.steps():
            if _is_whole(self.state_folder(step)):
                found.append(step)
            else:
                print(f"{self.state_folder(step)}: torn; it is passed over", file=sys.stderr)
        return found

    def open_state(self, step: int) -> Path:
        """The folder of a state, and that the work goes on from there."""
        print(f"going on from step {step} of an interrupted run", file=sys.stderr)
        self.last = time.monotonic()
        return self.state_folder(step)

    def state_folder(self, step: int) -> Path:
        """The folder of a state."""
        return self.folder / f"step-{step}"


def _is_whole(folder: Path) -> bool:
    try:
        known, found = json.loads((folder / HASHES).read_text(encoding="utf-8")), file_hashes(folder)
    except (OSError, ValueError):
        return False
    del found[HASHES]
    return bool(known == found)


def _to_disk(path: Path) -> None:
    """Until `path` would outlive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
