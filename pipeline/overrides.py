"""Set values of params.yaml, by the grammar and code of `dvc exp run -S`; `make experiment` calls this.

    python -m pipeline.overrides lora.rank=4 'seeds=[1,2]'

A value that params.yaml refuses leaves the file as it was.
"""

import sys
from collections.abc import Sequence

from captioning.base.errors import UserError
from captioning.base.quoting import shorten
from captioning.runtime.process import exit_status


def main(overrides: Sequence[str]) -> int:
    """Apply the overrides, and return the exit status."""
    return exit_status(lambda: apply(overrides), "interrupted: params.yaml is as it was")


def apply(overrides: Sequence[str]) -> int:
    """Apply the overrides to params.yaml. Raises `UserError`."""
    from dvc.exceptions import InvalidArgumentError  # slow imports are here, where Ctrl-C is one line
    from dvc.utils.hydra import apply_overrides

    from captioning.params.load import load_params
    from captioning.runtime.inputs import PARAMS

    if not overrides:
        raise UserError("SET: it is empty; name keys of params.yaml, as in make experiment SET='lora.rank=4'")
    before = PARAMS.read_bytes()
    try:
        apply_overrides(PARAMS, list(overrides))
        load_params()
    except BaseException as error:
        PARAMS.write_bytes(before)
        if isinstance(error, InvalidArgumentError):
            reason = str(error.__cause__).strip().splitlines()[0]
            raise UserError(f"SET: {shorten(' '.join(overrides))}: {reason}") from None
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
