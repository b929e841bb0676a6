"""Load params.yaml, or report all its faults at once, each with its key, its value and what is allowed."""

from pathlib import Path

from pydantic import ValidationError

from captioning.base.errors import UserError
from captioning.base.quoting import join_faults
from captioning.base.yaml_file import read_yaml
from captioning.params.faults import describe_faults, find_broken_references, find_secrets
from captioning.params.sections import Params
from captioning.runtime.inputs import PARAMS, params_at_start
from captioning.runtime.redaction import redact


def load_params(path: Path = PARAMS) -> Params:
    """Load `path`; a stage sees params.yaml as it was when it began. Raises `UserError` with every fault at once."""
    raw = (params_at_start() if path == PARAMS else None) or read_yaml(path)
    faults = find_broken_references(raw) + find_secrets(raw)
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        faults = describe_faults(error) + faults
    if faults:
        raise UserError(redact(f"{path}: {len(faults)} fault(s)\n  {join_faults(faults)}"))
    return params
