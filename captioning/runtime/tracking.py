"""Where a training's log is reported besides its step records: TensorBoard, Weights & Biases, or nowhere.

The Trainer's own callbacks report; this says to which, and where their files go: below `.cache/tracking`, beside the
outputs and outside DVC. Nothing of it enters a recipe or an output: the same bytes with and without. Neither package is
required.

1. Weights & Biases stays offline unless `mode` says otherwise; `wandb sync` sends a run later.
2. What the user has set in the environment (a project, a key, a disabled part) stays as it is; where files go does not.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captioning.base.errors import UserError
from captioning.base.paths import TRACKING
from captioning.base.redaction import redact

if TYPE_CHECKING:
    from captioning.params.load import Tracking

NOWHERE = "none"
INSTALL = "pip install -r requirements-tracking.txt"


def missing_package(tracking: "Tracking") -> str | None:
    """None where the package is there, or none is wanted; else what is missing and how to get it."""
    wanted = tracking.report_to
    if wanted == NOWHERE or find_spec(wanted) is not None:
        return None
    return f"tracking.report_to: {wanted} is not installed; run `{INSTALL}`, or set tracking.report_to: {NOWHERE}"


@contextmanager
def tracked(tracking: "Tracking", name: str, is_main: bool = True) -> Iterator[dict[str, Any]]:
    """The Trainer's options that report a training called `name`, with the environment they need for as long.

    Of several processes only the first reports; each Trainer knows of one.

    Raises `UserError` where the package is missing, or Weights & Biases refuses.
    """
    if tracking.report_to == NOWHERE or not is_main:
        yield {}
        return
    if missing := missing_package(tracking):
        raise UserError(missing)
    with _environment(_settings(tracking, TRACKING.absolute(), name)), _translate_refusal():
        yield {"report_to": [tracking.report_to], "run_name": name}


def _settings(tracking: "Tracking", logs: Path, name: str) -> dict[str, str]:
    """Environment variables of the trackers; each run has files of its own."""
    folder = logs / name
    if tracking.report_to == "tensorboard":
        return {"TENSORBOARD_LOGGING_DIR": str(folder / datetime.now().strftime("%Y%m%d-%H%M%S"))}
    folder.mkdir(parents=True, exist_ok=True)  # else it writes to a temporary folder
    places = {f"WANDB_{what}_DIR": str(logs / "wandb" / what.lower()) for what in ("CACHE", "DATA", "ARTIFACT")}
    project = {"WANDB_PROJECT": os.environ.get("WANDB_PROJECT", "captioning")}
    return {"WANDB_DIR": str(folder), "WANDB_MODE": tracking.mode} | places | project


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Environment variables for a while."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _translate_refusal() -> Iterator[None]:
    """End the run of Weights & Biases, if one began; its refusal is the user's to mend."""
    try:
        yield
    except Exception as error:
        if type(error).__module__.split(".")[0] != "wandb":
            raise
        reason = redact(" ".join(str(error).split()))
        remedy = "run `wandb login`, or set tracking.mode: offline"
        raise UserError(f"tracking: Weights & Biases refused ({type(error).__name__}: {reason}); {remedy}") from None
    finally:
        if (wandb := sys.modules.get("wandb")) and wandb.run is not None:
            wandb.finish()
            wandb.teardown()  # its service, too, and the variable that names it
