"""A command watched from outside: what it says goes on to stderr and into its parts, with what its processes held.

Memory is read from the system every half second, for each process of the command: all that is resident, and what of it
belongs to no file. The rest are pages of files that are mapped, a checkpoint's most of all, which the system takes back
when it needs them.
"""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

EVERY = 0.5  # seconds


@dataclass
class Part:
    """A part of a command: what it took, the most that one of its processes held (bytes), and its lines."""

    name: str
    begun: float
    seconds: float = 0.0
    resident: int = 0
    private: int = 0
    lines: tuple[str, ...] = ()


def watch(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], begins: Callable[[str], str | None]
) -> tuple[int, list[Part]]:
    """Exit status and parts; `begins`: the name of the part that a line of output begins, None for any other line."""
    parts = [Part("before", time.monotonic())]
    done = subprocess.Popen(command, cwd=folder, env=os.environ | dict(environment), text=True, bufsize=1,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    ended = threading.Event()
    reader = threading.Thread(target=_read_memory, args=(done.pid, parts, ended), daemon=True)
    reader.start()
    assert done.stdout is not None
    for line in done.stdout:
        print(line, end="", file=sys.stderr, flush=True)
        if (name := begins(line)) is not None:
            _end(parts)
            parts.append(Part(name, time.monotonic()))
        parts[-1].lines += (line.rstrip("\n"),)
    status = done.wait()
    ended.set()
    reader.join()
    _end(parts)
    return status, parts


def _end(parts: list[Part]) -> None:
    parts[-1].seconds = time.monotonic() - parts[-1].begun


def _read_memory(root: int, parts: list[Part], ended: threading.Event) -> None:
    while not ended.wait(EVERY):
        for memory in _memory(root):
            part = parts[-1]
            part.resident = max(part.resident, memory.rss)
            part.private = max(part.private, memory.rss - getattr(memory, "shared", 0))


def _memory(root: int) -> list[Any]:
    """Of each process that `root` is the ancestor of, and of itself."""
    found: list[Any] = []
    try:
        processes = [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
    except psutil.NoSuchProcess:
        return found
    for process in processes:
        try:
            found.append(process.memory_info())
        except psutil.NoSuchProcess:
            continue
    return found
