"""Show progress with an ETA, and measure time. Nothing here reaches an output."""

import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
MINUTE = 60.0  # seconds


def is_main_process() -> bool:
    """Return whether this process prints for all that run a stage together; torchrun numbers them."""
    return os.environ.get("ROLE_RANK", "0") == "0"


def peak_memory() -> str:
    """Return this process's peak use of memory, and of a GPU's if torch used one."""
    text = f"{1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9:.2f} GB"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        text += f", {torch.cuda.max_memory_allocated() / 1e9:.2f} GB of the GPU"
    return text


def progress(iterable: Iterable[T] | None, total: int | None, label: str) -> "tqdm[T]":
    """Return a bar with an ETA on stderr, to iterate over; without a terminal, it prints one line a minute."""
    seconds = 1.0 if sys.stderr.isatty() else MINUTE
    options: dict[str, Any] = {"mininterval": seconds, "delay": seconds if seconds == MINUTE else 0}
    return tqdm(iterable, total=total, desc=label, disable=not is_main_process(), dynamic_ncols=True, **options)


def write_stdout(text: str) -> None:
    """Write `text` to stdout, with `\\x…` for what its encoding lacks.

    If the reader has left, as `head` does, drop it and let the work go on.
    """
    encoding = sys.stdout.encoding or "utf-8"
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Stopwatch:
    """Seconds by part of a step; `wait` lets queued work finish before the time is read, as a GPU needs."""

    def __init__(self, wait: Callable[[], Any] = lambda: None) -> None:
        self.wait, self.seconds = wait, defaultdict[str, float](float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the duration of the block to `part`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.wait()
            self.seconds[part] += time.perf_counter() - start

    def lap(self) -> dict[str, float]:
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds
