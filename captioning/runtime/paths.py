"""Paths of outputs that several commands read, and of what is not an output: below `.cache`, outside DVC, since DVC
deletes outputs before a run."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

MAIN_CHECKOUT = "DVC_ROOT"  # environment variable that DVC sets, also in the copy of `dvc exp run --temp`
IMAGES = Path("data/captions/images.parquet")
SPLITS = Path("data/splits")  # a list of ids for each, <split>.txt, and statistics
TOKENS = Path("data/references/tokens.json")
PREDICTIONS = Path("data/predictions")  # <row>-<seed>.jsonl
SCORES = Path("data/scores/scores.json")
SIGNIFICANCE = SCORES.with_name("significance.json")
IMAGE_SCORES = SCORES.with_name("by-image.parquet")
CIDER = Path("metrics/CIDEr.json")
CACHE = Path(".cache")
DOWNLOADS = CACHE / "downloads"  # shards and weights before they become outputs
LOGS = CACHE / "logs"  # messages of stages that ran side by side
RESUME = CACHE / "resume"  # states of interrupted runs, <stage>/<fingerprint>
SET_ASIDE = CACHE / "set_aside.csv"  # of a refused source, whose outputs are not written
SCENES = CACHE / "scenes"  # captions of interrupted scenes
TIMINGS = CACHE / "timings"  # seconds of each part of a step, as CSV
TRACKING = CACHE / "tracking"  # files of TensorBoard and Weights & Biases
RUN_LOCK = "lock"  # in a run's folder below RESUME, held while the run works


def main_folder(path: Path) -> Path:
    """Return `path` in the main checkout: experiments outside the working tree share its downloads and states."""
    return Path(os.environ.get(MAIN_CHECKOUT, ".")) / path


def is_copy() -> bool:
    """Return whether this is the copy of the project in which `dvc exp run --temp` or the queue works."""
    return Path(os.environ.get(MAIN_CHECKOUT, ".")).resolve() != Path.cwd()


def fetched_folder(checkpoint: str = "") -> Path:
    """Return the folder of fetched weights, of all checkpoints or of one."""
    return main_folder(DOWNLOADS) / "checkpoints" / checkpoint


@contextmanager
def exclusive_folder(folder: Path, timeout: float = -1) -> Iterator[None]:
    """Lock a folder of downloads, which experiments share. Raises `filelock.Timeout` after `timeout` seconds."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock"), timeout=timeout):
        yield


def remove_downloads(folder: Path) -> None:
    """Remove the downloads below `folder`, except those that another run fetches."""
    for download in [path for path in folder.glob("*") if path.is_dir()]:
        with suppress(Timeout), exclusive_folder(download, timeout=0):
            shutil.rmtree(download, ignore_errors=True)
