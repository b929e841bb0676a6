"""`make rehearsal`: the paper profile's own stages at PaliGemma-3B's true shape, in under three quarters of an hour.

    python -m benchmarks.rehearsal                      on a GPU where there is one, else on the CPU
    python -m benchmarks.rehearsal --keep               leaves checkpoint and copy in .cache/rehearsal
    python -m benchmarks.rehearsal --shape miniature    the same of a model of two million weights, in minutes

A checkpoint of random weights and a handful of drawn pictures in RISC's layout stand in for what is not at hand. All
else is the real thing: a copy of the project, `profile: paper`, `dvc repro`: NF4, both of Table II's kinds of adapter,
SCST, captions, scores, page. What comes out says nothing of captions. It says that a run at this size goes through,
what it holds in memory beside what was predicted, and that the adapters have the sizes of Table II. On a GPU it goes on
to images per second by batch (benchmarks/throughput.py), for docs/planning.md.
"""

import argparse
import csv
import io
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import stages  # noqa: F401  # how long threads spin
from benchmarks.copies import AUTHOR, ROOT, copy_files, set_values
from benchmarks.rehearsal_report import TRAINED, report
from benchmarks.watch import Part, watch
from captioning.data.world.captions import write_captions
from captioning.data.world.draw import draw_scene
from captioning.data.world.scenes import sample_scene

DISK = {"3b": 15e9, "miniature": 0.5e9}  # bytes: the checkpoint, and a copy of it as a stage's output
SIDE = {"3b": 224, "miniature": 48}  # pixels
SPLITS = {"train": 8, "val": 4, "test": 4}  # images
SOURCES = ("NWPU", "RSICD", "UCM")
HEAP = str(2**22)  # bytes: what is larger goes back to the system when freed, so that memory is what tensors take
QUIET = {"DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1", "MALLOC_MMAP_THRESHOLD_": HEAP, "PYTHONUNBUFFERED": "1"}


def settings(shape: str, checkpoint: Path, device: str) -> dict[str, Any]:
    """What of params.yaml is set, by dotted key: the paper's profile, on fewer images and steps."""
    own: dict[str, Any] = {
        "data.source": "folder", "data.path": "data/raw", "data.declared": None, "data.image_size": SIDE[shape],
        "checkpoints.origin": "folder", "checkpoints.base.repository": str(checkpoint),
        "scst.images": 4, "scst.epochs": 1, "scst.batch": 2, "scst.validate_every": 2,
        "machine.device": device, "machine.threads": os.cpu_count() or 1,
        "machine.training_rows": 1, "machine.decoding_batch": 4,
    }  # fmt: skip
    return {
        "profile": "paper", "seeds": [1], "rows": list(TRAINED), "zero_shot": ["base"], "split.method": "own",
        "finetune.batch": 2, "finetune.accumulation": 2, "finetune.epochs": 1, "decoding.maximum_tokens": 12,
        "scst.starts": ["base-r16"], "scst.baselines": ["greedy"], "scst.samples": 2, "scst.validation_images": 2,
    } | {f"profiles.paper.{key}": value for key, value in own.items()}  # fmt: skip


def write_checkpoint(shape: str, folder: Path, device: str) -> Part:
    """Random weights, in a process of their own."""
    module = {"3b": "benchmarks.true_shape", "miniature": "benchmarks.miniature_shape"}[shape]
    command = [sys.executable, "-m", module, str(folder), device]
    status, parts = watch(command, ROOT, QUIET, lambda line: None)
    if status:
        sys.exit(f"{folder}: the checkpoint could not be written")
    parts[0].name = "(writing random weights)"
    return parts[0]


def draw_pictures(folder: Path, side: int) -> list[str]:
    """Drawn scenes in RISC's layout; returns all captions."""
    (folder / "resized").mkdir(parents=True, exist_ok=True)
    rng, rows = random.Random(1), []
    for split, number in SPLITS.items():
        for place in range(number):
            scene, source = sample_scene(rng), SOURCES[place % len(SOURCES)]
            name = f"{source}_{split}_{place}.jpg"
            draw_scene(scene, side, rng).save(folder / "resized" / name, quality=90)
            rows.append([source, split, name, *write_captions(scene, source, rng)])
    text = io.StringIO()
    header = ["source", "split", "image", *(f"caption_{number}" for number in range(1, 6))]
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    (folder / "captions.csv").write_text(text.getvalue(), encoding="utf-8")
    return [caption for row in rows for caption in row[3:]]


def make_copy(folder: Path, values: dict[str, Any], side: int) -> list[str]:
    """The project with `values` set and pictures of its own, in a repository of its own; returns the captions."""
    copy_files(folder, lambda name: name != "dvc.lock" and not name.startswith(("metrics/", "plots/")))
    set_values(folder / "params.yaml", values)
    said = draw_pictures(folder / "data/raw", side)
    commands = [
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message", "The project, never run"],
        ["dvc", "config", "--local", "cache.type", "hardlink,symlink,copy"],  # the weights once, not twice
    ]
    for command in commands:
        subprocess.run(command, cwd=folder, env=os.environ | AUTHOR | QUIET, check=True)
    return said


def stage_begins(line: str) -> str | None:
    """DVC's announcement of a stage."""
    return line.split("'")[1] if line.startswith("Running stage '") else None


def check_disk(folder: Path, needed: float) -> None:
    """Say what is free; stop where it is too little."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    print(f"{folder}: {free / 1e9:.0f} GB free, {needed / 1e9:.1f} needed for a while", file=sys.stderr)
    if free < needed:
        sys.exit(f"{folder}: too little disk; name a --folder on another")


def rehearse(folder: Path, shape: str, device: str) -> tuple[int, str]:
    """Everything, in `folder`; exit status and the table."""
    checkpoint, copy = folder / "checkpoint", folder / "project"
    shutil.rmtree(copy, ignore_errors=True)
    parts = [] if (checkpoint / "config.json").exists() else [write_checkpoint(shape, checkpoint, device)]
    said = make_copy(copy, settings(shape, checkpoint, device), SIDE[shape])
    status, of_stages = watch(["dvc", "repro"], copy, QUIET, stage_begins)
    if status:
        return status, f"`dvc repro` ended with status {status}; `--keep` leaves {copy} to look at"
    found, text = report(copy, [*parts, *of_stages[1:]], said, device, against_paper=shape == "3b")
    return found, text


def throughput(checkpoint: Path, device: str) -> int:
    """Images per second by batch, for planning."""
    command = [sys.executable, "-m", "benchmarks.throughput", str(checkpoint), device]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SIDE), default="3b")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache/rehearsal")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    asked = parser.parse_args(arguments)
    folder = asked.folder.resolve()
    check_disk(folder, DISK[asked.shape])
    try:
        status, text = rehearse(folder, asked.shape, device)
        print(text)
        if not status and device != "cpu":
            status = throughput(folder / "checkpoint", device)
        return status
    finally:
        if not asked.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
