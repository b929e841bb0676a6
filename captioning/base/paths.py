"""Where stands what is no output: below `.cache`, outside DVC, which deletes outputs before a run."""

from pathlib import Path

CACHE = Path(".cache")
DOWNLOADS = CACHE / "downloads"  # shards and weights, until they are outputs
FETCHED = DOWNLOADS / "checkpoints"
LOGS = CACHE / "logs"  # what stages said that ran side by side
RESUME = CACHE / "resume"  # states of interrupted runs, <stage>/<fingerprint>
TIMINGS = CACHE / "timings"  # seconds of each part of a step
TRACKING = CACHE / "tracking"  # TensorBoard's and Weights & Biases' files
RUN_LOCK = "lock"  # in a run's folder below RESUME, held while the run is under way
