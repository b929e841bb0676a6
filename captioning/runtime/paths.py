"""Paths of what is not an output: below `.cache`, outside DVC, since DVC deletes outputs before a run."""

from pathlib import Path

CACHE = Path(".cache")
DOWNLOADS = CACHE / "downloads"  # shards and weights before they become outputs
FETCHED = DOWNLOADS / "checkpoints"
LOGS = CACHE / "logs"  # messages of stages that ran side by side
RESUME = CACHE / "resume"  # states of interrupted runs, <stage>/<fingerprint>
SET_ASIDE = CACHE / "set_aside.csv"  # of a refused source, whose outputs are not written
TIMINGS = CACHE / "timings"  # seconds of each part of a step, as CSV
TRACKING = CACHE / "tracking"  # files of TensorBoard and Weights & Biases
RUN_LOCK = "lock"  # in a run's folder below RESUME, held while the run works
