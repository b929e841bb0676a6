"""Run a training in processes that torchrun forks from this one: python -m tests.helpers.forked_training NAME FOLDER N.

They need no import of torch of their own. This process has computed nothing yet, so that it has no threads, which a
fork would lose and wait for.
"""

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from captioning.compute import processes
from captioning.runtime.stage import stage_main
from tests.helpers.shared_training import main


def run(training: str, folder: Path, count: int) -> None:
    def fork(config: LaunchConfig, _: object) -> Callable[..., object]:
        launch = elastic_launch(replace(config, start_method="fork"), stage_main(main))
        return lambda *_: launch(training, folder, count)

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # of forks it logs tracebacks
    processes.elastic_launch = fork
    main(training, folder, count)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
