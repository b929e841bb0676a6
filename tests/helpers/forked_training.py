"""Run a training several times: `python -m tests.helpers.forked_training NAME FOLDER 1 2,STATES=1,KILL_AT=6`.

A run is its number of processes, then environment variables. The standard output is JSON: a status and what was written
for each run. All processes are forks, which need no import of torch of their own. This process computes nothing, so
that it has no threads, which a fork would lose and wait for.
"""

import gc
import json
import logging
import multiprocessing
import os
import sys
from pathlib import Path

from captioning.runtime.stage import stage_main
from tests.helpers.run_stages import fork_processes
from tests.helpers.shared_training import main

FORK = multiprocessing.get_context("fork")


def train(training: str, folder: str, run: str, errors: Path) -> None:
    """Train in this process, or in forks of it."""
    count, *variables = run.split(",")
    os.environ.update(variable.split("=") for variable in variables)
    output = os.open(errors, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)

    @stage_main
    def work() -> None:
        main(training, Path(folder), int(count))

    fork_processes(work)
    main(training, Path(folder), int(count))


def run_all(training: str, folder: str, *runs: str) -> list[tuple[int | None, str]]:
    results = []
    gc.freeze()  # otherwise each fork's collection copies the memory that it shares with this process
    for run in runs:
        errors = Path(folder, "errors.txt")
        errors.write_bytes(b"")
        process = FORK.Process(target=train, args=(training, folder, run, errors))
        process.start()
        process.join()
        results.append((process.exitcode, errors.read_text(encoding="utf-8")))
    return results


if __name__ == "__main__":
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # of forks it logs tracebacks
    print(json.dumps(run_all(*sys.argv[1:])))
