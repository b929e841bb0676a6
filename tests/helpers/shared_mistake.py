"""Make a user error in each of two processes, for compute/test_processes.py."""

import stages  # noqa: F401  # sets how long threads spin
from captioning.base.errors import UserError
from captioning.compute.processes import start_processes
from captioning.runtime.stage import stage_main


@stage_main
def main() -> None:
    if start_processes(2, "cpu") is not None:
        raise UserError("a mistake in each process")


if __name__ == "__main__":
    main()
