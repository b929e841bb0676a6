"""Measure two ways of the same work in turn (A B A B …), so that a drift of the machine's speed affects both."""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from captioning.commands.caption import parse_positive_int

HEADER = "| what | ours, ms | peer, ms | peer / ours, median of pairs (min-max) |\n|---|---|---|---|"


def side_by_side(label: str, ours: Callable[[], Any], peer: Callable[[], Any], pairs: int) -> str:
    """Return a row of the table. A first pair is not counted."""
    times = [(milliseconds(ours), milliseconds(peer)) for _ in range(pairs + 1)][1:]
    ratios = [peer_time / our_time for our_time, peer_time in times]
    our_median, peer_median = (statistics.median(column) for column in zip(*times, strict=True))
    spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
    return f"| {label} | {our_median:.1f} | {peer_median:.1f} | {statistics.median(ratios):.2f} ({spread}) |"


def make_parser(doc: str | None, pairs: int) -> argparse.ArgumentParser:
    """Make the parser of a benchmark that runs on the miniature and at the true shape."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=["miniature", "3b"], default="miniature")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--pairs", type=parse_positive_int, default=pairs, help="measurements of each, in turn")
    return parser


def parse_options(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; a missing GPU ends the program."""
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU; omit it to run on the CPU")
    return options


def milliseconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)
