"""Report which files below a folder each stage opens and writes, as the operating system sees it."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import source_from_cache
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

LAST = ".last"  # when the event of this file has arrived, so have all earlier ones
RUNNING = ".cache/running/"  # a stage has a file here while it runs (helpers/audit_hook)
PARTIAL = ".partial"
TIMEOUT = 10.0  # seconds


@dataclass
class StageFiles:
    """Files that a stage opened, files it wrote in place, and files that appeared by a rename.

    Creations do not count: a folder that is renamed before it is watched reports some for its files.
    """

    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    renamed: set[str] = field(default_factory=set)


@dataclass(eq=False)
class OpenedFiles(FileSystemEventHandler):
    """The files below `folder` of each stage. One stage runs at a time."""

    folder: Path
    stages: dict[str, StageFiles] = field(default_factory=dict)
    running: StageFiles | None = None
    is_complete: bool = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        name = self._name(event.src_path)
        if name == LAST:
            self.is_complete = True
        elif name.startswith(RUNNING):
            if event.event_type == "created":
                self.running = self.stages.setdefault(name.removeprefix(RUNNING), StageFiles())
            elif event.event_type == "deleted":
                self.running = None
        elif self.running is None:
            return
        elif event.event_type == "moved":
            self.running.renamed.add(self._name(event.dest_path))
        elif not event.is_directory and event.event_type == "opened":
            self.running.read.add(source_from_cache(name) if name.endswith(".pyc") else name)
        elif not event.is_directory and event.event_type in ("modified", "closed", "deleted"):
            self.running.written.add(name)

    def _name(self, path: str | bytes) -> str:
        return Path(os.fsdecode(path)).relative_to(self.folder).as_posix()


@contextmanager
def record_opened(folder: Path) -> Iterator[OpenedFiles]:
    """Record what stages do below `folder` during the block; the record is complete after it."""
    files, observer = OpenedFiles(folder), Observer()
    (folder / RUNNING).mkdir(parents=True)
    observer.schedule(files, str(folder), recursive=True)
    observer.start()
    try:
        yield files
        (folder / LAST).touch()
        deadline = time.monotonic() + TIMEOUT
        while not files.is_complete and time.monotonic() < deadline:
            time.sleep(0.02)
        (folder / LAST).unlink()
        assert files.is_complete, "the system does not report opened files"
    finally:
        observer.stop()
        observer.join()
        (folder / RUNNING).rmdir()


def within(name: str, paths: Iterable[str]) -> bool:
    """Return whether `name` is one of `paths` or below one."""
    return any(name == path or name.startswith(f"{path}/") for path in paths)


def is_partial(name: str) -> bool:
    """Return whether `name` is of an output before its final rename."""
    return any(part.startswith(".") and part.endswith(PARTIAL) for part in Path(name).parts)
