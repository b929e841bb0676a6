"""Train the paper's seven variants with `make repro JOBS=2` and one after the other, in turn; compare the adapters.

    python -m benchmarks.jobs                    the project with its params.yaml, two at a time
    python -m benchmarks.jobs --pairs 3 --set profiles.miniature.machine.threads=1

Both train in copies of a prepared project that has images, checkpoints and recipes (`dvc repro recipes` makes them, and
later only updates them). The start of the program, DVC's work and the recording count on both sides. The machine should
have nothing else to do.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from benchmarks.copies import AUTHOR, ROOT, copy_files, set_values
from captioning.commands.caption import parse_positive_int
from captioning.report.table_text import format_markdown

VARIANTS = ("full-adapter", "base-r4", "base-r8", "base-r16", "mix", "cococap", "rsvqa-lr")  # Table II
FOLDER = ROOT / ".cache/benchmark-jobs"
QUIET = {"DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1"}


def prepare(folder: Path, values: dict[str, Any]) -> None:
    """Copy the project with `values` and run it up to its recipes, with no training in its cache."""
    copy_files(folder, lambda name: name != "dvc.lock" and not name.startswith(("metrics/", "plots/")))
    set_values(folder / "params.yaml", {"rows": list(VARIANTS), "scst.starts": ["mix"]} | values)
    if not (folder / ".git").exists():
        run_command(folder, "git", "init", "--quiet")
    run_command(folder, sys.executable, "-m", "dvc", "repro", "recipes")


def train(prepared: Path, folder: Path, jobs: int) -> float:
    """Train all variants in a copy of `prepared`, `jobs` at a time; return the seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared, folder, symlinks=True)
    targets = [f"qlora-train@{variant}-1" for variant in VARIANTS]
    start = time.perf_counter()
    run_command(folder, sys.executable, "-m", "pipeline.jobs", "--jobs", str(jobs), *targets)
    return time.perf_counter() - start


def run_command(folder: Path, *words: str) -> None:
    """Run a command in `folder`; its output goes to stderr, its failure ends the program."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | AUTHOR | QUIET | {"PATH": path}
    subprocess.run(words, cwd=folder, env=environment, stdout=sys.stderr, check=True)


def different_files(first: Path, second: Path) -> list[str]:
    """Name adapters and step records whose bytes differ."""
    paths = [path for kind in ("models/adapters", "plots/steps") for path in (first / kind).rglob("*")]
    names = sorted(path.relative_to(first).as_posix() for path in paths if path.is_file())
    return [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()]


def run(jobs: int, pairs: int, values: dict[str, Any]) -> str:
    """Return the table."""
    prepare(FOLDER / "prepared", values)
    folders = {1: FOLDER / "one", jobs: FOLDER / "several"}
    times = [[train(FOLDER / "prepared", folder, count) for count, folder in folders.items()] for _ in range(pairs)]
    ratios = [in_turn / at_once for in_turn, at_once in times]
    in_turn, at_once = (statistics.median(column) for column in zip(*times, strict=True))
    changed = different_files(*folders.values())
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    header = ["what", "one after the other, s", f"{jobs} at a time, s", "ratio, median of pairs (min-max)"]
    line = [f"{len(VARIANTS)} variants, {os.cpu_count()} cores", f"{in_turn:.0f}", f"{at_once:.0f}", spread]
    outcome = (
        f"Not the same bytes: {', '.join(changed)}" if changed else "Adapters and step records are the same bytes."
    )
    return f"{format_markdown(header, [line])}\n{outcome}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=parse_positive_int, default=2)
    parser.add_argument("--pairs", type=parse_positive_int, default=3, help="measurements of each, in turn")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a value of params.yaml, on both sides"
    )
    options = parser.parse_args(arguments)
    if options.jobs == 1:
        parser.error("--jobs 1: that is the peer; use 2 or more")
    settings = (setting.partition("=") for setting in options.set)
    print(run(options.jobs, options.pairs, {key: YAML(typ="safe").load(value) for key, _, value in settings}))


if __name__ == "__main__":
    main()
