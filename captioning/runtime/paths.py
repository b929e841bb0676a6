"""Paths of what is not an output: below `.cache`, outside DVC, since DVC deletes outputs before a run."""

import os
from pathlib import Path

MAIN_CHECKOUT = "DVC_ROOT"  # environment variable that DVC sets, also in the copy of `dvc exp run --temp`
CACHE = Path(".cache")
DOWNLOADS = CACHE / "downloads"  # shards and weights before they become outputs
LOGS = CACHE / "logs"  # messages of stages that ran side by side
RESUME = CACHE / "resume"  # states of interrupted runs, <stage>/<fingerprint>
SET_ASIDE = CACHE / "set_aside.csv"  # of a refused source, whose outputs are not written
TIMINGS = CACHE / "timings"  # seconds of each part of a step, as CSV
TRACKING = CACHE / "tracking"  # files of TensorBoard and Weights & Biases
RUN_LOCK = "lock"  # in a run's folder below RESUME, held while the run works


def main_folder(path: Path) -> Path:
    """Return `path` in the main checkout: experiments outside the working tree share its downloads and states."""
    return Path(os.environ.get(MAIN_CHECKOUT, ".")) / path


def fetched_folder(checkpoint: str = "") -> Path:
    """Return the folder of fetched weights, of all checkpoints or of one."""
    return main_folder(DOWNLOADS) / "checkpoints" / checkpoint
