"""Report a training to TensorBoard or Weights & Biases (optional packages) by the Trainer's callbacks, in no output."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from typing import Any, Protocol

from captioning.base.errors import UserError
from captioning.runtime.paths import TRACKING
from captioning.runtime.redaction import redact

NOWHERE = "none"
INSTALL = "pip install -r requirements-tracking.txt"


class Tracking(Protocol):
    """What params.yaml's section `tracking` says (params/sections.py)."""

    report_to: Any
    mode: Any


def missing_package(tracking: Tracking) -> str | None:
    """Return a message if the tracker's package is not installed, else None."""
    package = tracking.report_to
    if package == NOWHERE or find_spec(package) is not None:
        return None
    return f"tracking.report_to: {package} is not installed; run `{INSTALL}`, or set tracking.report_to: {NOWHERE}"


@contextmanager
def tracked(tracking: Tracking, name: str, is_main: bool = True) -> Iterator[dict[str, Any]]:
    """Give the Trainer's options that report a training called `name`; only the main process reports. Raises
    `UserError` if the package is missing or Weights & Biases refuses."""
    if tracking.report_to == NOWHERE or not is_main:
        yield {}
        return
    if fault := missing_package(tracking):
        raise UserError(fault)
    folder = TRACKING.absolute() / name
    folder.mkdir(parents=True, exist_ok=True)  # otherwise Weights & Biases writes to a temporary folder
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder / datetime.now().strftime("%Y%m%d-%H%M%S"))
    os.environ.update(WANDB_DIR=str(folder), WANDB_MODE=tracking.mode)
    os.environ.setdefault("WANDB_PROJECT", "captioning")
    try:
        yield {"report_to": [tracking.report_to], "run_name": name}
    except Exception as error:
        if type(error).__module__.split(".")[0] != "wandb":
            raise
        reason = redact(" ".join(f"{type(error).__name__}: {error}".split()))
        remedy = "run `wandb login`, or set tracking.mode: offline"
        raise UserError(f"tracking: Weights & Biases refused ({reason}); {remedy}") from None
