"""What a run tells its user: progress with an ETA. Nothing here reaches an output."""

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
    """Whether this process speaks for all that do a stage together; torchrun numbers them."""
    return os.environ.get("ROLE_RANK", "0") == "0"


def peak_memory() -> str:
    """The most this process has held so far: of memory, and of a GPU's where torch used one."""
    told = f"{1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9:.2f} GB"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        told += f", {torch.cuda.max_memory_allocated() / 1e9:.2f} GB of the GPU"
    return told


def progress(iterable: Iterable[T], total: int | None, what: str) -> Iterable[T]:
    """`iterable` with a bar and an ETA on stderr."""
    return progress_bar(total, what, iterable)


def progress_bar(total: int | None, what: str, iterable: Iterable[Any] | None = None) -> tqdm:
    """A bar with an ETA on stderr; where that is no terminal, a line a minute of what takes longer than one."""
    pace = 1.0 if sys.stderr.isatty() else MINUTE
    options: dict[str, Any] = {"mininterval": pace, "delay": 0 if pace == 1 else pace, "dynamic_ncols": True}
    return tqdm(iterable, total=total, desc=what, disable=not is_main_process(), **options)


def write_stdout(text: str) -> None:
    """`text` to stdout. Where nobody reads on, as behind `| head`, the rest is dropped and the work goes on."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Stopwatch:
    """Seconds by part. `wait` lets queued work finish before the time is read, as a GPU's must."""

    def __init__(self, wait: Callable[[], Any] = lambda: None) -> None:
        self.wait, self.seconds = wait, defaultdict[str, float](float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add what the block takes to `part`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.wait()
            self.seconds[part] += time.perf_counter() - begun

    def lap(self) -> dict[str, float]:
        """What has been measured since the last lap."""
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds
