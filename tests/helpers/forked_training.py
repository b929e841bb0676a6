"""Run a training in processes that are forked: `python -m tests.helpers.forked_training NAME FOLDER PROCESSES`.

They need no import of torch of their own. This process has computed nothing yet, so that it has no threads, which a
fork would lose and wait for.
"""

import logging
import sys
from pathlib import Path

from captioning.runtime.stage import stage_main
from tests.helpers.run_stages import fork_processes
from tests.helpers.shared_training import main


@stage_main
def work() -> None:
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))


if __name__ == "__main__":
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # of forks it logs tracebacks
    fork_processes(work)
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
