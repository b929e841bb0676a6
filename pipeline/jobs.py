"""`make repro`: do what `dvc repro` does, with independent stages side by side.

    python -m pipeline.jobs --jobs 2 evaluate         the stages of `dvc repro evaluate`, two at a time

dvc.lock has the same bytes as after `dvc repro --keep-going`. The output of each stage goes to `.cache/logs`.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from captioning.base.errors import UserError
from captioning.base.quoting import shorten
from captioning.runtime.paths import LOGS
from captioning.runtime.process import exit_status

MAX_JOBS = 9999
AUTO = "auto"
MEMORY = 2e9  # bytes of a stage on a CPU, with its libraries


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that the command line names, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.jobs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="stages, as of `dvc repro` (default: all)")
    parser.add_argument("--jobs", default=AUTO, metavar="N", help="stages at a time (default: as many as fit)")
    return exit_status(lambda: reproduce(parser.parse_args(arguments)), "interrupted before any stage started")


def reproduce(options: argparse.Namespace) -> int:
    """Reproduce the targets side by side. Raises `UserError`."""
    jobs = parse_jobs(options.jobs) or count_fitting_jobs()
    from tqdm import tqdm  # slow imports are here, where Ctrl-C is one line

    from captioning.params.load import load_params
    from pipeline.reproduction import Pipeline
    from pipeline.runner import Runner
    from pipeline.shares import share_gpus

    params = load_params()
    tqdm.monitor_interval = 0  # a process with a second thread must not fork
    make_log_folder()
    return Runner(Pipeline(options.targets), jobs, lambda: share_gpus(params, jobs)).run()


def make_log_folder() -> None:
    """Make the folder of logs. Raises `UserError` if that is impossible."""
    try:
        LOGS.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{LOGS}: {error.strerror}; the logs of stages need this folder") from None


def count_fitting_jobs() -> int:
    """Return how many stages the machine has room for: by its GPUs, or by cores and free memory."""
    from psutil import virtual_memory

    from captioning.params.load import load_params
    from pipeline.shares import visible_gpus

    params = load_params()
    machine, processes = params.active.machine, params.launch.processes
    if machine.device != "cpu":
        return max(1, len(visible_gpus()) // processes) if machine.device == "cuda" else 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = int(virtual_memory().available / (MEMORY * processes))
    return max(1, min(cores // (machine.threads * processes), memory))


def parse_jobs(text: str) -> int | None:
    """Return the number of jobs; None: as many as fit. Raises `UserError`."""
    if text == AUTO:
        return None
    if text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_JOBS)) and int(text) >= 1:
        return int(text)
    raise UserError(f"JOBS: {shorten(text)} is neither a whole number from 1 to {MAX_JOBS} nor auto; set JOBS=2")


if __name__ == "__main__":
    sys.exit(main())
