"""params.yaml: its sections (params/sections.py) as one, and the active profile folded in.

All faults are reported at once, each with its key, its value and what is allowed.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from captioning.base.errors import UserError
from captioning.base.quoting import join_faults
from captioning.base.redaction import redact
from captioning.base.yaml_file import read_yaml
from captioning.params.faults import describe_faults, find_broken_references, find_secrets
from captioning.params.sections import (
    CHECKPOINTS,
    DEVICE,
    Checkpoint,
    Data,
    Declared,
    Decoding,
    Finetune,
    HubCheckpoints,
    Launch,
    Lora,
    Name,
    Profile,
    Resume,
    Scst,
    Section,
    Seed,
    Split,
    Tracking,
    Variant,
)
from captioning.runtime.inputs import PARAMS, params_at_start

__all__ = ["CHECKPOINTS", "DEVICE", "Data", "Declared", "HubCheckpoints", "Params", "Tracking", "load_params"]


class Params(Section):
    profile: Literal["miniature", "paper"]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    rows: Annotated[list[str], Field(min_length=1)]
    launch: Launch
    tracking: Tracking
    resume: Resume
    split: Split
    lora: Lora
    finetune: Finetune
    variants: Annotated[dict[Name, Variant], Field(min_length=1)]
    zero_shot: list[Checkpoint]
    decoding: Decoding
    scst: Scst
    profiles: dict[Literal["miniature", "paper"], Profile]

    @property
    def active(self) -> Profile:
        """The block of the profile that is switched on."""
        return self.profiles[self.profile]

    @property
    def data(self) -> Data:
        return self.active.data


def load_params(path: Path = PARAMS) -> Params:
    """Check `path`, as a stage's process found it when it began. Raises `UserError` with every fault at once."""
    raw = (params_at_start() if path == PARAMS else None) or read_yaml(path)
    faults = find_broken_references(raw) + find_secrets(raw)
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        faults = describe_faults(error) + faults
    if faults:
        raise UserError(redact(f"{path}: {len(faults)} fault(s)\n  {join_faults(faults)}"))
    return params
