"""`make repro`: what `dvc repro` does, with stages that do not need one another side by side.

    python -m pipeline.jobs                           everything, as many stages at a time as the machine has room for
    python -m pipeline.jobs --jobs 2 evaluate         what `dvc repro evaluate` looks at, two at a time

dvc.lock comes out as `dvc repro --keep-going` writes it, byte for byte. What a stage says goes to `.cache/logs`, and
where it fails its error is shown.
"""

import argparse
import sys
from collections.abc import Sequence

from captioning.base.errors import UserError
from captioning.base.paths import LOGS
from captioning.base.quoting import shorten
from captioning.runtime.command_line import exit_status

MOST_DIGITS = 4  # of a number of jobs
AUTO = "auto"
MEMORY = 2e9  # bytes that a stage on a CPU takes, its libraries included


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line names; the exit status."""
    return exit_status(lambda: run(parser().parse_args(arguments)), "interrupted before anything ran")


def run(chosen: argparse.Namespace) -> int:
    """Everything between the command line and the exit status. Raises `UserError`."""
    return side_by_side(chosen.targets, count(chosen.jobs) or room())


def side_by_side(targets: Sequence[str], jobs: int) -> int:
    """What `targets` need, `jobs` at a time."""
    from tqdm import tqdm  # what takes long to import is imported where Ctrl-C is one line

    from captioning.params.load import load_params
    from pipeline.reproduction import Pipeline
    from pipeline.runner import Runner
    from pipeline.shares import share_gpus

    params = load_params()
    tqdm.monitor_interval = 0  # no thread beside the one that forks
    make_logs()
    return Runner(Pipeline(targets), jobs, lambda: share_gpus(params, jobs)).run()


def make_logs() -> None:
    """The folder of what stages say. Raises `UserError` where there can be none."""
    try:
        LOGS.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        told = (error.strerror or str(error)).lower()
        raise UserError(f"{LOGS}: {told}; what stages say goes to a folder there, make way for it") from None


def room() -> int:
    """How many stages the machine has room for at a time: by its GPUs, or by cores and free memory."""
    from psutil import virtual_memory

    from captioning.params.load import load_params
    from pipeline.shares import own_cores, visible_gpus

    params = load_params()
    machine, processes = params.active.machine, params.launch.processes
    if machine.device != "cpu":
        return max(1, len(visible_gpus()) // processes) if machine.device == "cuda" else 1
    cores = len(own_cores()) // (machine.threads * processes)
    return max(1, min(cores, int(virtual_memory().available / (MEMORY * processes))))


def count(text: str) -> int | None:
    """The number of jobs that `text` says; None: as many as there is room for. Raises `UserError`."""
    if text == AUTO:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS) or int(text) < 1:
        most = "9" * MOST_DIGITS
        wanted = f"no whole number from 1 to {most}, nor auto; say how many stages may run at a time, JOBS=2"
        raise UserError(f"JOBS: {shorten(text)} is {wanted}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m pipeline.jobs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("targets", nargs="*", metavar="TARGET", help="stages, as of `dvc repro` (default: all)")
    made.add_argument("--jobs", default=AUTO, metavar="N", help="stages at a time (default: as there is room for)")
    return made


if __name__ == "__main__":
    sys.exit(main())
