"""Two ways of the same work, in turn: A B A B …, so that a machine whose speed drifts slows both alike."""

import statistics
import time
from collections.abc import Callable
from typing import Any

HEADER = "| what | ours, ms | peer, ms | peer / ours, median of pairs (min-max) |\n|---|---|---|---|"


def side_by_side(what: str, ours: Callable[[], Any], peer: Callable[[], Any], pairs: int) -> str:
    """A row of the table, after one uncounted pair."""
    times = [(milliseconds(ours), milliseconds(peer)) for _ in range(pairs + 1)][1:]
    ratios = [theirs / own for own, theirs in times]
    own, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    return f"| {what} | {own:.1f} | {theirs:.1f} | {statistics.median(ratios):.2f} ({spread}) |"


def milliseconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun)
