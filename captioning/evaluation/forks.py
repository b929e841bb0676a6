"""Share work among forks of this process, which need no second import."""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from captioning.runtime.progress import progress

FORK = multiprocessing.get_context("fork")
MAX_FORKS = 4  # METEOR takes up to 1 GB in each, and much of a second core
T = TypeVar("T")
R = TypeVar("R")


def map_in_forks(work: Callable[[Sequence[T]], Iterable[R]], items: Sequence[T], forks: int, label: str) -> list[R]:
    """Return the results of `work` in the order of `items`, and show progress with a `label`.

    Each fork gives its share of the items to `work`, which yields a result for each of them. An error of `work` is
    raised here. Forks end with this process; if it is killed, at their next result.
    """
    results = dict[int, R]()
    shares = [range(first, len(items), forks) for first in range(min(forks, len(items)))]
    pipes = [_start_fork(work, items, share) for share in shares]
    with progress(None, len(items), label) as bar:
        while pipes:
            for pipe in wait(pipes):
                assert isinstance(pipe, Connection)
                try:
                    number, result = pipe.recv()
                except EOFError:
                    pipes.remove(pipe)
                    continue
                if isinstance(result, Exception):
                    raise result
                results[number] = result
                bar.update()
    if len(results) < len(items):
        raise RuntimeError(f"{label}: a fork was killed")
    return [results[number] for number in range(len(items))]


def _start_fork(work: Callable[[Sequence[T]], Iterable[R]], items: Sequence[T], share: range) -> Connection:
    receiving, sending = FORK.Pipe(duplex=False)

    def send_results() -> None:
        receiving.close()  # else it would not learn that nobody receives
        _send_results(work, [items[number] for number in share], share, sending)

    FORK.Process(target=send_results, daemon=True).start()
    sending.close()
    return receiving


def _send_results(
    work: Callable[[Sequence[T]], Iterable[R]], items: Sequence[T], share: range, pipe: Connection
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process, which ends its forks
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(BrokenPipeError):
        try:
            for number, result in zip(share, work(items), strict=True):
                pipe.send((number, result))
        except Exception as error:
            pipe.send((0, error))
