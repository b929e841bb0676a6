"""`make rehearsal`: run the paper profile's stages at PaliGemma-3B's true shape, in less than 45 minutes.

    python -m benchmarks.rehearsal                      on a GPU if there is one, otherwise on the CPU
    python -m benchmarks.rehearsal --keep               leaves checkpoint and copy in .cache/rehearsal
    python -m benchmarks.rehearsal --shape miniature    with a model of 1.7 million weights, in minutes

A checkpoint of random weights and some drawn images in RISC's layout replace the real ones. Everything else is real: a
copy of the project, `profile: paper`, `dvc repro`, NF4, both kinds of adapters of Table II, SCST, captions, scores.
The captions mean nothing. The rehearsal shows that a run of this size completes, its memory beside the prediction, and
that the adapters have the sizes of Table II. On a GPU it also measures images per second by batch
(benchmarks/throughput.py), for docs/planning.md.
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

import stages  # noqa: F401  # sets how long threads spin
from benchmarks.copies import AUTHOR, ROOT, copy_files, set_values
from benchmarks.rehearsal_report import TRAINED, report
from benchmarks.watch import CommandPart, watch
from captioning.data.world.captions import write_captions
from captioning.data.world.draw import draw_scene
from captioning.data.world.scenes import sample_scene

DISK = {"3b": 15e9, "miniature": 0.5e9}  # bytes: the checkpoint, and a copy of it as a stage's output
SIDE = {"3b": 224, "miniature": 48}  # pixels
SPLITS = {"train": 8, "val": 4, "test": 4}  # images
SOURCES = ("NWPU", "RSICD", "UCM")
HEAP = str(2**22)  # bytes; larger blocks return to the system when freed, so that tensors decide the memory
QUIET = {"DVC_NO_ANALYTICS": "1", "HF_HUB_OFFLINE": "1", "MALLOC_MMAP_THRESHOLD_": HEAP, "PYTHONUNBUFFERED": "1"}


def settings(shape: str, checkpoint: Path, device: str) -> dict[str, Any]:
    """Return values of params.yaml by dotted key: the paper's profile, with fewer images and steps."""
    data = {"source": "folder", "path": "data/raw", "declared": None, "image_size": SIDE[shape]}
    scst = {"images": 4, "epochs": 1, "batch": 2, "validate_every": 2}
    machine = {"device": device, "threads": os.cpu_count() or 1, "training_rows": 1}
    machine |= {"scst_images": 2, "decoding_batch": 4}
    values: dict[str, Any] = {"profile": "paper", "seeds": [1], "rows": list(TRAINED), "zero_shot": ["base"]}
    values |= {"finetune.batch": 2, "finetune.accumulation": 2, "finetune.epochs": 1, "decoding.maximum_tokens": 12}
    values |= {"scst.starts": ["base-r16"], "scst.baselines": ["greedy"], "scst.samples": 2}
    values |= {"scst.validation_images": 2, "split.method": "own"}
    origin = {"profiles.paper.checkpoints.origin": "folder"}
    origin |= {"profiles.paper.checkpoints.base.repository": str(checkpoint)}
    sections: dict[str, dict[str, Any]] = {"data": data, "scst": scst, "machine": machine}
    return (
        values
        | origin
        | {
            f"profiles.paper.{section}.{key}": value
            for section, keys in sections.items()
            for key, value in keys.items()
        }
    )


def write_checkpoint(shape: str, folder: Path, device: str) -> CommandPart:
    """Write random weights in a new process."""
    module = {"3b": "benchmarks.true_shape", "miniature": "benchmarks.miniature_shape"}[shape]
    command = [sys.executable, "-m", module, str(folder), device]
    status, parts = watch(command, ROOT, QUIET, lambda line: None)
    if status:
        sys.exit(f"{folder}: the checkpoint could not be written")
    parts[0].name = "(writing random weights)"
    return parts[0]


def draw_images(folder: Path, side: int) -> list[str]:
    """Draw scenes in RISC's layout; return all captions."""
    (folder / "resized").mkdir(parents=True, exist_ok=True)
    rng, rows = random.Random(1), []
    for split, number in SPLITS.items():
        for index in range(number):
            scene, source = sample_scene(rng), SOURCES[index % len(SOURCES)]
            name = f"{source}_{split}_{index}.jpg"
            draw_scene(scene, side, rng).save(folder / "resized" / name, quality=90)
            rows.append([source, split, name, *write_captions(scene, source, rng)])
    text = io.StringIO()
    header = ["source", "split", "image", *(f"caption_{number}" for number in range(1, 6))]
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    (folder / "captions.csv").write_text(text.getvalue(), encoding="utf-8")
    return [caption for row in rows for caption in row[3:]]


def make_copy(folder: Path, values: dict[str, Any], side: int) -> list[str]:
    """Copy the project with `values` and drawn images into a git repository; return the captions."""
    copy_files(folder, lambda name: name != "dvc.lock" and not name.startswith(("metrics/", "plots/")))
    set_values(folder / "params.yaml", values)
    captions = draw_images(folder / "data/raw", side)
    commands = [
        ["git", "init", "--quiet"],
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message", "The project, never run"],
        ["dvc", "config", "--local", "cache.type", "hardlink,symlink,copy"],  # the weights once, not twice
    ]
    for command in commands:
        subprocess.run(command, cwd=folder, env=os.environ | AUTHOR | QUIET, check=True)
    return captions


def stage_begins(line: str) -> str | None:
    """Return the stage that DVC announces in `line`."""
    return line.split("'")[1] if line.startswith("Running stage '") else None


def check_disk(folder: Path, needed: float) -> None:
    """Print the free disk space; exit if it is too little."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    print(f"{folder}: {free / 1e9:.0f} GB free, {needed / 1e9:.1f} needed temporarily", file=sys.stderr)
    if free < needed:
        sys.exit(f"{folder}: too little disk; choose a --folder on another")


def rehearse(folder: Path, shape: str, device: str) -> tuple[int, str]:
    """Run everything in `folder`; return exit status and the table."""
    checkpoint, copy = folder / "checkpoint", folder / "project"
    shutil.rmtree(copy, ignore_errors=True)
    parts = [] if (checkpoint / "config.json").exists() else [write_checkpoint(shape, checkpoint, device)]
    captions = make_copy(copy, settings(shape, checkpoint, device), SIDE[shape])
    status, stage_parts = watch(["dvc", "repro"], copy, QUIET, stage_begins)
    if status:
        return status, f"`dvc repro` ended with status {status}; `--keep` leaves {copy} for inspection"
    return report(copy, [*parts, *stage_parts[1:]], captions, device, against_paper=shape == "3b")


def measure_throughput(checkpoint: Path, device: str) -> int:
    """Measure images per second by batch, for planning."""
    command = [sys.executable, "-m", "benchmarks.throughput", str(checkpoint), device]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SIDE), default="3b")
    parser.add_argument("--folder", type=Path, default=ROOT / ".cache/rehearsal")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    check_disk(folder, DISK[options.shape])
    try:
        status, text = rehearse(folder, options.shape, device)
        print(text)
        if not status and device != "cpu":
            status = measure_throughput(folder / "checkpoint", device)
        return status
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
