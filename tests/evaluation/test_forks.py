"""Work that is shared among forks gives the results of one process, and its errors; no fork outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from captioning.base.errors import UserError
from captioning.evaluation.forks import map_in_forks

ROOT = Path(__file__).parents[2]
CODE = """
import time
from captioning.evaluation.forks import map_in_forks

def work(items):
    for item in items:
        time.sleep(0.3)
        yield item

map_in_forks(work, range(1000), 3, "items")
"""


def square(items: Sequence[int]) -> Iterator[tuple[int, int]]:
    for item in items:
        yield item * item, os.getpid()


@pytest.mark.parametrize(("items", "forks"), [(7, 1), (7, 3), (2, 4), (0, 2)])
def test_results_are_in_order_and_of_so_many_forks(items: int, forks: int) -> None:
    results = map_in_forks(square, range(items), forks, "squares")
    assert [square for square, _ in results] == [item * item for item in range(items)]
    assert len({process for _, process in results}) == min(items, forks)
    assert os.getpid() not in {process for _, process in results}


def test_an_error_of_the_work_is_raised() -> None:
    def work(items: Sequence[int]) -> Iterator[int]:
        yield items[0]
        raise UserError("no such metric")

    with pytest.raises(UserError, match="no such metric"):
        map_in_forks(work, range(4), 2, "rows")


def test_a_killed_fork_is_not_taken_for_a_result() -> None:
    def work(items: Sequence[int]) -> Iterator[int]:
        yield items[0]
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match="rows: a fork was killed"):
        map_in_forks(work, range(4), 2, "rows")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_forks_end_with_their_parent(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", CODE], cwd=ROOT, stderr=subprocess.PIPE, text=True) as parent:
        while len(forks := psutil.Process(parent.pid).children()) < 3:
            time.sleep(0.05)
        time.sleep(0.5)
        parent.send_signal(number)
        _, alive = psutil.wait_procs(forks, timeout=20)
        assert not alive
        assert parent.stderr is not None
        assert parent.stderr.read().count("Traceback") == (0 if number == signal.SIGKILL else 1)
