"""Read JSON files, which may be damaged."""

import json
from pathlib import Path
from typing import Any

from captioning.base.errors import UserError
from captioning.base.quoting import shorten

REMEDY = "run `dvc repro`, which writes it again"


def read_json(path: Path | str, remedy: str = REMEDY) -> Any:
    """Return the content of `path`. Raises `UserError` if it is not JSON, `OSError` if it does not exist."""
    return parse_json(path, Path(path).read_bytes(), remedy)


def parse_json(path: Path | str, content: bytes, remedy: str = REMEDY) -> Any:
    """Return the `content` of the file `path`. Raises `UserError` if it is not JSON."""
    try:
        return json.loads(content)
    except UnicodeDecodeError as error:
        byte = f"byte 0x{content[error.start]:02x} at {error.start:,}"
        raise UserError(f"{path}: {byte} is not {error.encoding.upper()}; save it in UTF-8, or {remedy}") from None
    except (ValueError, RecursionError):
        raise UserError(f"{path}: not JSON, or incomplete; {remedy}") from None


def read_map(path: Path, *keys: str, remedy: str = REMEDY) -> dict[str, Any]:
    """Read a map that has `keys`. Raises `UserError` if the file holds anything else."""
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise UserError(f"{path}: {shorten(content)} is not a map; {remedy}")
    if missing := [key for key in keys if key not in content]:
        raise UserError(f"{path}: {', '.join(missing[:3])} missing; {remedy}")
    return content
