"""Write outputs atomically: under another name in the same folder, then renamed.

An interrupted run leaves a name that ends in `.partial`; git and DVC ignore it, and the next run replaces it.
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
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a path to write a file to, which becomes `path` if the block succeeds and is removed if it fails."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with _partial_path(path) as partial:
        yield partial
        partial.replace(path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Do the same for a folder, which exists in the block and replaces the folder at `path`."""
    with _partial_path(path) as partial:
        partial.mkdir()
        yield partial
        if path.is_dir():  # a folder cannot be replaced in one step; before a stage, DVC removes it
            shutil.rmtree(path)
        partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 and keep its line ends."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any, indent: int | None = 1, **options: Any) -> None:
    """Write `content` as JSON with a newline at the end; `options` go to `json.dumps`."""
    write_text(path, json.dumps(content, indent=indent, **options) + "\n")


def write_records(path: Path, records: Sequence[dict[str, Any]], columns: Sequence[str]) -> None:
    """Write step records as CSV: floats have six significant digits, a missing value is an empty cell."""
    with atomic_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_format_cell(record.get(column)) for column in columns] for record in records)


def _format_cell(value: Any) -> Any:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else value


@contextmanager
def _partial_path(path: Path) -> Iterator[Path]:
    """Give the path where `path` is prepared; after the block, nothing remains there."""
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
