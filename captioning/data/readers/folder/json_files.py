"""Recognise and read the JSON in which captioned data sets are published, by the keys that each form has.

A file of the right form with faults in it is refused with all of them at once.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from captioning.base.errors import UserError
from captioning.base.json_files import read_json
from captioning.base.quoting import escape, join_faults, shorten
from captioning.data.readers.names import STATED_SPLITS, read_split
from captioning.data.readers.rows import Annotation

MAX_JSON_BYTES = 512 << 20  # COCO's captions have 92 MB
REMEDY = "fetch it again"
Model = TypeVar("Model", bound=BaseModel)


class JsonForm(NamedTuple):
    """A form of JSON: its name for messages, how to recognise its content, and how to read it."""

    name: str
    fits: Callable[[Any], bool]
    read: Callable[[Any, "JsonFile"], list[Annotation]]


class JsonFile(NamedTuple):
    """Where a file is: on this machine, and in the source, whose name is `root`."""

    path: Path
    file: str
    root: str


def load(path: Path) -> Any:
    """Return the content of a JSON file, None if it is too large. Raises `UserError` if it is damaged."""
    if path.stat().st_size > MAX_JSON_BYTES:
        return None
    try:
        return read_json(path, REMEDY)
    except UserError:
        if _is_json_lines(path):
            raise UserError(f"{path}: this is JSON Lines, an object a line; name it {path.stem}.jsonl") from None
        raise


def _is_json_lines(path: Path) -> bool:
    with path.open("rb") as file:
        line = file.readline()
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def is_list_of(content: Any, *keys: str) -> bool:
    """Return whether `content` is a list in which a map has `keys`; the first may be incomplete."""
    maps = (item for item in content if isinstance(item, dict)) if isinstance(content, list) else ()
    return any(all(key in item for key in keys) for item in maps)


def validate(model: type[Model], content: Any, where: JsonFile) -> Model:
    """Return `content` as `model`. Raises one `UserError` with all faults."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise UserError(join_faults([f"{where.path}: {_describe(fault)}" for fault in error.errors()])) from None


def _describe(fault: Any) -> str:
    key = escape("".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]))
    return f"{key.lstrip('.')}: {shorten(fault['input'])}: {escape(fault['msg'])}; correct it, or remove the entry"


def require_split(text: str) -> str:
    """Return RISC's name of a split, for a model. Raises `ValueError` if `text` names none."""
    if (split := read_split(text)) not in STATED_SPLITS:
        raise ValueError("use train, val, test or leave it empty")
    return split


StatedSplit = Annotated[str, AfterValidator(require_split)]
