"""Use DVC as a library: list the stages in its order, find those that changed, and run one while others run.

DVC unlocks the repository while a command runs and locks paths instead, so independent stages can run side by side.
This module does with each stage what `dvc repro` does (dvc 3.67, repo/reproduce.py), with three differences:

1. A job waits for the repository's lock while another job holds it.
2. DVC appends to dvc.lock in the order in which stages finish. Here an entry goes where `dvc repro` would write it.
3. DVC reads and writes all of dvc.lock in place, for up to two seconds. Here other stages' entries stay the text that
   they are, and a copy replaces the file, so that a kill cannot cut it short.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from dvc.exceptions import DvcException
from dvc.lock import LockError, make_lock
from dvc.repo import Repo, lock_repo
from dvc.repo.reproduce import collect_stages, get_active_graph, plan_repro
from dvc.stage import PipelineStage
from dvc.stage.serialize import to_lockfile
from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update
from ruamel.yaml import YAML

from captioning.base.errors import UserError

LOCK_FILE = Path("dvc.lock")
EMPTY = "schema: '2.0'\nstages:\n"
PLAIN = re.compile(EMPTY + r"(?:(?:  [^\s#?].*| {3}.*|)\n)*")  # a dvc.lock as DVC writes it, with stages alone


class Pipeline:
    """The stages that `dvc repro` of `targets` would check. Raises `UserError` if DVC refuses."""

    def __init__(self, targets: Sequence[str]) -> None:
        with _one_line_errors():
            self.repo = Repo()
            self.folder = Path(self.repo.tmp_dir or ".dvc/tmp")
            with lock_repo(self.repo):
                remove_stale_locks(self.folder)
                graph = get_active_graph(self.repo.index.graph)
                stages = plan_repro(graph, collect_stages(self.repo, targets or ["dvc.yaml"]))
        self.repo.lock = self._make_lock(wait=False)
        self.stages = {stage.addressing: stage for stage in stages}
        self.needs = {
            name: {need.addressing for need in graph.successors(stage)} for name, stage in self.stages.items()
        }
        recorded = YAML(typ="safe").load(LOCK_FILE) if LOCK_FILE.is_file() else None
        names = (stage.name for stage in stages if isinstance(stage, PipelineStage))
        self.order = list(dict.fromkeys([*((recorded or {}).get("stages") or {}), *names]))

    def is_changed(self, name: str) -> bool:
        """Return whether a stage must run. Raises `LockError` if another DVC works on it."""
        with lock_repo(self.repo):
            try:
                return self.stages[name].changed()
            except LockError:
                raise
            except DvcException:
                return True  # the run itself reports why it fails

    def reproduce(self, name: str) -> bool:
        """Run a stage, or restore it from the run cache, and record it. Raises `DvcException` if it fails."""
        stage, repo = self.stages[name], self.repo
        repo.lock = self._make_lock(wait=True)
        with lock_repo(repo), repo.scm_context(quiet=True):
            changed = stage.reproduce()
            if changed:
                self._record(stage)
        return changed is not None

    def _record(self, stage: Any) -> None:
        if not isinstance(stage, PipelineStage):  # it has its own file, as after `dvc add`
            stage.dump()
            return
        lock_file, copy = Path(stage.path).with_suffix(".lock"), self.folder / LOCK_FILE
        text = lock_file.read_text(encoding="utf-8") if lock_file.is_file() else EMPTY
        copy.write_text(replace_entries(text, to_lockfile(stage), self.order), encoding="utf-8")
        copy.replace(lock_file)

    def _make_lock(self, wait: bool) -> Any:
        """Return DVC's own lock, without its progress bar for waiting."""
        hardlink = self.repo.config["core"].get("hardlink_lock", False)
        return make_lock(self.repo.lock.lockfile, tmp_dir=self.repo.tmp_dir, hardlink_lock=hardlink, wait=wait)


def replace_entries(text: str, entries: Mapping[str, Any], order: Sequence[str]) -> str:
    """Return the text of a dvc.lock with these entries of stages by name, in `order`, as DVC writes them."""
    if not PLAIN.fullmatch(text):  # as after an edit by hand: all of it is read and written
        content = parse_yaml_for_update(text, LOCK_FILE)
        content.setdefault("schema", "2.0")
        _insert(content.setdefault("stages", {}), entries, order)
        return dumps_yaml(content)
    stages = _split_entries(text)
    _insert(stages, _split_entries(dumps_yaml({"stages": entries})), order)
    return EMPTY + "".join(stages.values())


def _insert(stages: dict[str, Any], entries: Mapping[str, Any], order: Sequence[str]) -> None:
    """Put entries into `stages`, whose names in `order` come last and in that order."""
    stages.update(entries)
    for name in [name for name in order if name in stages]:
        stages[name] = stages.pop(name)


def _split_entries(text: str) -> dict[str, str]:
    """Return the text of each stage's entry in a part of dvc.lock, by the stage's name."""
    entries = [entry for entry in re.split(r"^(?=  \S)", text, flags=re.MULTILINE) if entry.startswith("  ")]
    return {next(iter(YAML(typ="safe").load(entry.partition("\n")[0]))): entry for entry in entries}


def remove_stale_locks(folder: Path) -> None:
    """Remove DVC's file of locks on paths if a kill cut it short, or if it names a process that started after it.

    DVC ignores locks of processes that have ended, but another process may have got the process id since.
    """
    path = folder / "rwlock"
    try:
        locks, saved = json.loads(path.read_bytes()), path.stat().st_mtime
        entries = [entry for lock in locks.values() for entry in (lock.get("write"), *lock.get("read", ())) if entry]
        is_stale = any(_started_after(entry["pid"], saved) for entry in entries)
    except (ValueError, AttributeError, KeyError, TypeError):
        is_stale = True
    except OSError:
        return
    if is_stale:
        path.unlink(missing_ok=True)


def _started_after(pid: int, time: float) -> bool:
    """Return whether a process with this id started more than a second after `time`; False if there is none."""
    try:
        return psutil.Process(pid).create_time() > time + 1
    except psutil.Error:
        return False


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Raise `UserError` with one line if DVC refuses."""
    try:
        yield
    except DvcException as error:
        reasons = [str(reason) for reason in (error, error.__cause__) if reason is not None]
        raise UserError(" ".join(": ".join(reasons).split())) from None
