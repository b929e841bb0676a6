"""Training the paper's seven variants: `make repro JOBS=2` against one after the other, in turn, and the same adapters.

    python -m benchmarks.jobs                    the project as it stands, two at a time
    python -m benchmarks.jobs --pairs 3 --set profiles.miniature.machine.threads=1

Both train in copies of one prepared project, which has its images, checkpoints and recipes already; the first time it
is made (`dvc repro recipes`), afterwards only what changed is. Starting the program, DVC's own work and recording count
on both sides. It wants a machine with nothing else to do.
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
from captioning.commands.caption import positive_int

VARIANTS = ("full-adapter", "base-r4", "base-r8", "base-r16", "mix", "cococap", "rsvqa-lr")  # Table II
FOLDER = ROOT / ".cache/benchmark-jobs"
QUIET = {"DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1"}


def prepare(folder: Path, values: dict[str, Any]) -> None:
    """The project with `values`, up to its recipes, with none of its trainings in its cache."""
    copy_files(folder, lambda name: name != "dvc.lock" and not name.startswith(("metrics/", "plots/")))
    set_values(folder / "params.yaml", {"rows": list(VARIANTS), "scst.starts": ["mix"]} | values)
    if not (folder / ".git").exists():
        command(folder, "git", "init", "--quiet")
    command(folder, sys.executable, "-m", "dvc", "repro", "recipes")


def train(prepared: Path, folder: Path, jobs: int) -> float:
    """Seconds for all variants in a copy of `prepared`, `jobs` at a time; the copy stays."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(prepared, folder, symlinks=True)
    targets = [f"qlora-train@{variant}-1" for variant in VARIANTS]
    begun = time.perf_counter()
    command(folder, sys.executable, "-m", "pipeline.jobs", "--jobs", str(jobs), *targets)
    return time.perf_counter() - begun


def command(folder: Path, *words: str) -> None:
    """Run it there, with all it says to stderr; its failure ends the program."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | AUTHOR | QUIET | {"PATH": path}
    subprocess.run(words, cwd=folder, env=environment, stdout=sys.stderr, check=True)


def different(one: Path, other: Path) -> list[str]:
    """Adapters and step records that are not the same bytes in both."""
    files = [path for kind in ("models/adapters", "plots/steps") for path in (one / kind).rglob("*") if path.is_file()]
    names = sorted(path.relative_to(one).as_posix() for path in files)
    return [name for name in names if (one / name).read_bytes() != (other / name).read_bytes()]


def run(jobs: int, pairs: int, values: dict[str, Any]) -> str:
    """The table."""
    prepare(FOLDER / "prepared", values)
    places = {1: FOLDER / "one", jobs: FOLDER / "several"}
    times = [[train(FOLDER / "prepared", place, count) for count, place in places.items()] for _ in range(pairs)]
    ratios = [alone / several for alone, several in times]
    alone, several = (statistics.median(column) for column in zip(*times, strict=True))
    moved = different(*places.values())
    lines = [
        f"| what | one after the other, s | {jobs} at a time, s | ratio, median of pairs (min-max) |",
        "|---|---|---|---|",
        f"| {len(VARIANTS)} variants, {os.cpu_count()} cores | {alone:.0f} | {several:.0f} | "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |",
        f"Not the same bytes: {', '.join(moved)}" if moved else "Adapters and step records are the same bytes.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=positive_int, default=2)
    parser.add_argument("--pairs", type=positive_int, default=3, help="measurements of each, in turn")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of params.yaml, on both sides")
    asked = parser.parse_args(arguments)
    if asked.jobs == 1:
        parser.error("--jobs 1: that is the peer; from 2 on")
    pairs = (setting.partition("=") for setting in asked.set)
    print(run(asked.jobs, asked.pairs, {key: YAML(typ="safe").load(value) for key, _, value in pairs}))


if __name__ == "__main__":
    main()
