"""Bytes: of what stands on a disk, and as people read them. Nothing but the standard library, so that `make clean`
needs no installation."""

import os
from collections.abc import Iterator
from pathlib import Path

UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
BLOCK = 512  # bytes, in which `st_blocks` counts


def told(size: float) -> str:
    """`size` bytes with two or three digits: 1.3 GB, 340 MB."""
    for unit, name in UNITS:
        if size >= unit:
            return f"{size / unit:.1f} {name}" if size < 9.95 * unit else f"{size / unit:.0f} {name}"
    return f"{size:.0f} bytes"


def length(path: Path) -> int:
    """Bytes of a file, or of the files below a folder, as they are read; 0 where nothing is there."""
    return sum(one.st_size for one in _entries(path, folders=False))


def occupied(*paths: Path) -> int:
    """Bytes that a disk holds for `paths` and what is below them, as `du` counts: blocks, hard links once."""
    blocks = {(one.st_dev, one.st_ino): one.st_blocks for path in paths for one in _entries(path, folders=True)}
    return BLOCK * sum(blocks.values())


def _entries(path: Path, folders: bool) -> Iterator[os.stat_result]:
    """Links are not followed; what vanishes meanwhile is not counted."""
    try:
        found = path.lstat()
    except OSError:
        return
    below = path.is_dir() and not path.is_symlink()
    if folders or not below:
        yield found
    if below:
        for folder, names, files in os.walk(path):
            for name in [*files, *(name for name in names if folders or os.path.islink(os.path.join(folder, name)))]:
                try:
                    yield os.lstat(os.path.join(folder, name))
                except OSError:
                    continue
