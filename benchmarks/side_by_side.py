"""Two ways of the same work, in turn: A B A B …, so that a machine whose speed drifts slows both alike."""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from captioning.commands.caption import positive_int

HEADER = "| what | ours, ms | peer, ms | peer / ours, median of pairs (min-max) |\n|---|---|---|---|"


def side_by_side(what: str, ours: Callable[[], Any], peer: Callable[[], Any], pairs: int) -> str:
    """A row of the table, after one uncounted pair."""
    times = [(milliseconds(ours), milliseconds(peer)) for _ in range(pairs + 1)][1:]
    ratios = [theirs / own for own, theirs in times]
    own, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    return f"| {what} | {own:.1f} | {theirs:.1f} | {statistics.median(ratios):.2f} ({spread}) |"


def parser(doc: str | None, pairs: int) -> argparse.ArgumentParser:
    """Arguments of a benchmark that runs in the miniature and at the true shape; `ask` reads them."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--shape", choices=["miniature", "3b"], default="miniature")
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    made.add_argument("--pairs", type=positive_int, default=pairs, help="measurements of each, in turn")
    return made


def ask(arguments: argparse.ArgumentParser) -> argparse.Namespace:
    """What the command line says; ends the program where it names a GPU that is not there."""
    asked = arguments.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        arguments.error("--device cuda: torch finds no GPU; leave it out to run on the CPU")
    return asked


def milliseconds(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begun)
