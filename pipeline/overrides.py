"""Set values of params.yaml with DVC's own code, as `dvc exp run -S` does; `make experiment` calls this.

    python -m pipeline.overrides "lora.rank=4 'finetune.prompt=describe en'"

A value that is refused leaves the file as it was.
"""

import shlex
import shutil
import sys
from contextlib import chdir
from tempfile import TemporaryDirectory

from captioning.base.errors import UserError
from captioning.base.files import write_text
from captioning.base.yaml_file import read_yaml
from captioning.runtime.inputs import PARAMS
from captioning.runtime.process import exit_status

REMEDY = "write SET=\"lora.rank=4 'seeds=[1,2]'\", as for `dvc exp run -S`"


def main(text: str) -> int:
    """Set the values that `text` names, separated by spaces, and return the exit status."""
    return exit_status(lambda: set_values(text), "interrupted: params.yaml is as it was")


def set_values(text: str) -> int:
    """Set values of params.yaml, or none of them. Raises `UserError`."""
    from dvc.exceptions import DvcException  # slow imports are here, where Ctrl-C is one line
    from dvc.utils.hydra import apply_overrides, to_hydra_overrides
    from hydra.errors import HydraException

    from captioning.params.load import load_params

    read_yaml(PARAMS)  # a damaged file is reported as such
    try:
        if not (words := shlex.split(text)):
            raise UserError(f"SET: it names no value; {REMEDY}")
        sweeps = [override.input_line for override in to_hydra_overrides(words) if override.is_sweep_override()]
        if sweeps:
            raise UserError(f"SET: {sweeps[0]} has several values; write a list in brackets, as in seeds=[1,2]")
        with TemporaryDirectory() as folder:
            shutil.copy(PARAMS, folder)
            with chdir(folder):
                apply_overrides(PARAMS, words)
                load_params()
                content = PARAMS.read_text(encoding="utf-8")
    except (DvcException, HydraException, ValueError) as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise UserError(f"SET: {text}: {reason}; {REMEDY}") from None
    write_text(PARAMS, content)
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
