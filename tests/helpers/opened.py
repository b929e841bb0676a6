"""Which files a command opens and writes below a folder, as the system reports it: whatever language does it."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

SETTLED = ".settled"  # a file whose event says that all before it have come
PARTIAL = ".partial"
PATIENCE = 10.0  # seconds


@dataclass(eq=False)
class Opened(FileSystemEventHandler):
    """Paths below `folder`: files opened, files written in place, files that appeared by a rename.

    Files are not taken at their creation: for a folder renamed before it was watched, that is reported of its files.
    """

    folder: Path
    read: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    renamed: set[str] = field(default_factory=set)
    settled: bool = False

    def on_any_event(self, event: FileSystemEvent) -> None:
        name = self._name(event.src_path)
        if name == SETTLED:
            self.settled = True
        elif event.event_type == "moved":
            self.renamed.add(self._name(event.dest_path))
        elif event.is_directory:
            return
        elif event.event_type == "opened":
            self.read.add(name)
        elif event.event_type in ("modified", "closed", "deleted"):
            self.written.add(name)

    def _name(self, path: str | bytes) -> str:
        return Path(os.fsdecode(path)).relative_to(self.folder).as_posix()


@contextmanager
def opened(folder: Path) -> Iterator[Opened]:
    """What happens below `folder` while the block runs; complete after it."""
    found, observer = Opened(folder), Observer()
    observer.schedule(found, str(folder), recursive=True)
    observer.start()
    try:
        yield found
        (folder / SETTLED).touch()
        deadline = time.monotonic() + PATIENCE
        while not found.settled and time.monotonic() < deadline:
            time.sleep(0.02)
        (folder / SETTLED).unlink()
        assert found.settled, "the system reports no files that are opened"
    finally:
        observer.stop()
        observer.join()


def within(name: str, paths: Iterator[str] | list[str] | tuple[str, ...] | set[str]) -> bool:
    """Whether `name` is one of `paths`, or lies below one."""
    return any(name == path or name.startswith(f"{path}/") for path in paths)


def is_partial(name: str) -> bool:
    """Whether `name` is of something on its way to its place."""
    return any(part.startswith(".") and part.endswith(PARTIAL) for part in Path(name).parts)
