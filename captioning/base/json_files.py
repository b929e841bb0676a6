"""JSON that a stage or a program wrote, which an accident may have cut short."""

import json
from pathlib import Path
from typing import Any

from captioning.base.errors import UserError
from captioning.base.quoting import short

AGAIN = "run `dvc repro`, which writes it anew"


def read_json(path: Path | str, remedy: str = AGAIN) -> Any:
    """What `path` holds. Raises `UserError` where that is no JSON; `OSError` where it is not there."""
    try:
        return json.loads(Path(path).read_bytes())
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
        raise UserError(f"{path}: no JSON, or cut short; {remedy}") from None


def read_map(path: Path, *keys: str, remedy: str = AGAIN) -> dict[str, Any]:
    """`read_json` of a map that has `keys`. Raises `UserError` where it is none, or lacks one."""
    found = read_json(path, remedy)
    if not isinstance(found, dict):
        raise UserError(f"{path}: {short(found)} is no map; {remedy}")
    if lacking := [key for key in keys if key not in found]:
        raise UserError(f"{path}: {', '.join(lacking[:3])} not in it; {remedy}")
    return found
