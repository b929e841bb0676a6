"""Outputs appear whole or not at all: written beside their place under another name, then renamed.

A name that ends in `.partial` is what an interrupted run left; git and DVC ignore it, the next run replaces it.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write a file or a folder to; it becomes `path` where the block ends well, and is removed where not."""
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        if path.is_dir():  # a folder cannot be replaced in one step; DVC has removed it before it runs a stage
            shutil.rmtree(path)
        partial.replace(path)
    finally:
        _remove(partial)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """`whole` for a folder, which is there to write into."""
    with whole(path) as partial:
        partial.mkdir()
        yield partial


def write_text(path: Path, text: str) -> None:
    """`text` as UTF-8, its line ends as they are."""
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any, indent: int | None = 1, **options: Any) -> None:
    """`content` as JSON with a line's end; `options` are `json.dumps`'s."""
    write_text(path, json.dumps(content, indent=indent, **options) + "\n")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
