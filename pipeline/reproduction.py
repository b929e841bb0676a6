"""DVC from within: its stages in its order, which of them changed, and one of them reproduced beside others.

DVC unlocks the repository while a command runs, and locks paths instead, so that stages which do not touch one
another's outputs can run side by side. This does what `dvc repro` does with each stage (dvc 3.67, repo/reproduce.py),
one process a stage, with differences:

1. Its lock on the repository waits where another job holds it.
2. DVC appends to dvc.lock in the order stages finish. Here an entry goes where `dvc repro` would have written it.
3. DVC writes dvc.lock in place, for up to a second. Here it is replaced whole, so that a kill cannot cut it short.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.lock import LockError, make_lock
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.stage import PipelineStage
from ruamel.yaml import YAML

from captioning.base.errors import UserError

ENTRY = re.compile(r"^(?=  \S)", re.MULTILINE)
STAGES = re.compile(r"^stages:\n((?:(?:  .*)?\n)*)", re.MULTILINE)
NAME = re.compile(r"""  (["']?)(.+)\1:\n""")


class Pipeline:
    """The stages that `dvc repro` of `targets` would look at. Raises `UserError` where DVC refuses."""

    def __init__(self, targets: Sequence[str]) -> None:
        with _refusals():
            self.repo = Repo()
            with lock_repo(self.repo):
                forget_dead(Path(self.repo.tmp_dir or ".dvc/tmp"))
                graph = get_active_graph(self.repo.index.graph)
                steps = plan_repro(graph, collect_stages(self.repo, targets or ["dvc.yaml"]))
        self.repo.lock = self._lock(wait=False)
        self.stages = {stage.addressing: stage for stage in steps}
        self.needs = {name: {one.addressing for one in graph.successors(stage)} for name, stage in self.stages.items()}
        self.orders = {lock: _order(lock, steps) for lock in {_lock_file(stage) for stage in steps}}

    def until_changed(self, names: Sequence[str], halt: Callable[[], bool]) -> tuple[list[str], str | None]:
        """The stages that did not change, up to the first that did, and that one; `halt` ends the search.

        Raises `LockError` where another DVC is at work on it.
        """
        unchanged: list[str] = []
        with lock_repo(self.repo):
            for name in names:
                if halt():
                    break
                if self._changed(name):
                    return unchanged, name
                unchanged.append(name)
        return unchanged, None

    def _changed(self, name: str) -> bool:
        try:
            return self.stages[name].changed()
        except LockError:
            raise
        except DvcException:
            return True  # it says why it fails when it is run

    def reproduce(self, name: str) -> bool:
        """Run a stage, or take it from the run cache, and record it. Raises `DvcException` where it failed."""
        stage, repo = self.stages[name], self.repo
        repo.lock = self._lock(wait=True)
        with lock_repo(repo), repo.scm_context(quiet=True):
            done = stage.reproduce()
            if done:
                self._record(stage)
        return done is not None

    def _record(self, stage: Any) -> None:
        """As DVC does it, but in a copy that takes dvc.lock's place when it is whole."""
        lock, part = _lock_file(stage), Path(self.repo.tmp_dir or ".dvc/tmp") / "dvc.lock"
        if not isinstance(stage, PipelineStage):
            stage.dump()  # of `dvc add`, in a file of its own
            return
        part.unlink(missing_ok=True)
        if lock.is_file():
            shutil.copy(lock, part)
        Lockfile(self.repo, str(part)).dump(stage)
        settle(part, self.orders[lock])
        part.replace(lock)

    def _lock(self, wait: bool) -> Any:
        """DVC's own, without a bar that says it is waited for."""
        hardlink = self.repo.config["core"].get("hardlink_lock", False)
        return make_lock(self.repo.lock.lockfile, tmp_dir=self.repo.tmp_dir, hardlink_lock=hardlink, wait=wait)


def _lock_file(stage: Any) -> Path:
    return Path(stage.path).with_suffix(".lock")


def _order(lock: Path, steps: Sequence[Any]) -> list[str]:
    """Entries of dvc.lock as `dvc repro` leaves them: what is there stays, what is new follows in its order."""
    known = YAML(typ="safe").load(lock) if lock.is_file() else None
    new = [stage.name for stage in steps if _lock_file(stage) == lock and getattr(stage, "name", None)]
    return list(dict.fromkeys([*((known or {}).get("stages") or {}), *new]))


def settle(lock: Path, order: Sequence[str]) -> None:
    """Put the entries of `lock` into `order`, their bytes untouched."""
    text = lock.read_text(encoding="utf-8") if lock.is_file() else ""
    found = STAGES.search(text)
    entries = ENTRY.split(found[1])[1:] if found else []
    names = [match[2] if (match := NAME.match(entry)) else "" for entry in entries]
    if found is None or not set(names) <= set(order):
        return  # not as DVC writes it: all is recorded, in the order it was done
    ordered = "".join(
        entry for _, entry in sorted(zip(names, entries, strict=True), key=lambda one: order.index(one[0]))
    )
    lock.write_text(text[: found.start(1)] + ordered + text[found.end(1) :], encoding="utf-8")


def forget_dead(folder: Path) -> None:
    """Drop from DVC's locks on paths what processes hold that were killed; DVC itself takes a reused number for them.

    The repository is locked: nobody else writes here.
    """
    path = folder / "rwlock"
    try:
        held, written = json.loads(path.read_text(encoding="utf-8") or "{}"), path.stat().st_mtime
    except FileNotFoundError:
        return
    except ValueError:  # killed while it wrote
        path.unlink()
        return
    writing = {name: one for name, one in held.get("write", {}).items() if _lives(one["pid"], written)}
    reading = {
        name: [one for one in many if _lives(one["pid"], written)] for name, many in held.get("read", {}).items()
    }
    left = {"write": writing, "read": {name: many for name, many in reading.items() if many}}
    path.write_text(json.dumps(left), encoding="utf-8")
    os.utime(path, (written, written))


def _lives(process: int, written: float) -> bool:
    """Whether the process that was running at `written` still is, and no other under its number."""
    try:
        return psutil.Process(process).create_time() <= written + 1
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _refusals() -> Iterator[None]:
    """What DVC refuses, in one line."""
    try:
        yield
    except DvcException as error:
        reasons = [str(one) for one in (error, error.__cause__) if one is not None]
        raise UserError(" ".join(": ".join(reasons).split())) from None
