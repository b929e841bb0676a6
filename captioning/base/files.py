"""Outputs appear whole or not at all: written beside their place under another name, then renamed.

A name that ends in `.partial` is what an interrupted run left; git and DVC ignore it, the next run replaces it.
"""

import csv
import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write a file to; it becomes `path` where the block ends well, and is removed where not.

    Raises `IsADirectoryError` where a folder stands at `path`: no file takes a folder's place.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with _beside(path) as partial:
        yield partial
        partial.replace(path)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """`whole` for a folder, which is there to write into, and which takes the place of the one before."""
    with _beside(path) as partial:
        partial.mkdir()
        yield partial
        if path.is_dir():  # it cannot be replaced in one step; DVC has removed it before it runs a stage
            shutil.rmtree(path)
        partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8, its line ends as they are."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any, indent: int | None = 1, **options: Any) -> None:
    """`content` as JSON with a line's end; `options` are `json.dumps`'s."""
    write_text(path, json.dumps(content, indent=indent, **options) + "\n")


def write_records(path: Path, records: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Step records as CSV: floats with six significant digits, a value that was not measured left empty."""
    with whole(path) as partial, partial.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for record in records:
            writer.writerow([_cell(record.get(column)) for column in columns])


def _cell(value: Any) -> Any:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Where `path` is written until it is whole; nothing is left of it after the block."""
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
