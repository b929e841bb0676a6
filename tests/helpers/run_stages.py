"""Run stages one after another in this process, which loads libraries once. Processes that they start are its forks.

python -m tests.helpers.run_stages recipes "qlora_train mix 1"
"""

import os
import runpy
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace

from captioning.runtime import inputs, stage


def run_stage(name: str, *arguments: str) -> None:
    """Do what `python -m stages.NAME` does."""

    def main() -> None:
        runpy.run_module(f"stages.{name}", run_name="__main__")

    os.environ.pop(inputs.FINGERPRINT, None)
    inputs.noted_inputs.clear()
    sys.argv = [name, *arguments]
    stage.begin(["-m", f"stages.{name}", *arguments])
    fork_processes(main)
    main()


def fork_processes(main: Callable[[], None]) -> None:
    """Let `start_processes` fork this process, and call `main` in each fork."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from captioning.compute import processes

    def fork(config: LaunchConfig, _: object) -> Callable[..., object]:
        return lambda *_: elastic_launch(replace(config, start_method="fork"), main)()

    processes.elastic_launch = fork  # type: ignore[assignment]


if __name__ == "__main__":
    for command in sys.argv[1:]:
        run_stage(*shlex.split(command))
