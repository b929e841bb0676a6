"""Watch a command: cut its output into parts, and measure the seconds and the memory of each.

Twice a second, the operating system reports for each process its resident memory and the share that belongs to no file.
The remainder are mapped files, mostly a checkpoint's, whose pages the system can free.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

INTERVAL = 0.5  # seconds


@dataclass
class CommandPart:
    """A part of a command: seconds, the highest memory of one of its processes (bytes), and its lines."""

    name: str
    start: float
    seconds: float = 0.0
    resident: int = 0
    private: int = 0
    lines: tuple[str, ...] = ()


def watch(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], begins: Callable[[str], str | None]
) -> tuple[int, list[CommandPart]]:
    """Return exit status and parts. `begins` names the part that a line of output begins, or returns None."""
    parts = [CommandPart("before", time.monotonic())]
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "bufsize": 1}
    process: Any = subprocess.Popen(command, cwd=folder, env=os.environ | dict(environment), **streams)
    ended = threading.Event()
    reader = threading.Thread(target=_measure_memory, args=(process.pid, parts, ended), daemon=True)
    reader.start()
    for line in process.stdout:
        print(line, end="", file=sys.stderr, flush=True)
        if (name := begins(line)) is not None:
            _end(parts)
            parts.append(CommandPart(name, time.monotonic()))
        parts[-1].lines += (line.rstrip("\n"),)
    status = process.wait()
    ended.set()
    reader.join()
    _end(parts)
    return status, parts


def _end(parts: list[CommandPart]) -> None:
    parts[-1].seconds = time.monotonic() - parts[-1].start


def _measure_memory(root: int, parts: list[CommandPart], ended: threading.Event) -> None:
    while not ended.wait(INTERVAL):
        for memory in _read_memory(root):
            part = parts[-1]
            part.resident = max(part.resident, memory.rss)
            part.private = max(part.private, memory.rss - getattr(memory, "shared", 0))


def _read_memory(root: int) -> list[Any]:
    """Read the memory of `root` and its descendants."""
    memories: list[Any] = []
    with suppress(psutil.NoSuchProcess):
        for process in (psutil.Process(root), *psutil.Process(root).children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                memories.append(process.memory_info())
    return memories
