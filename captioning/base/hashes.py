"""Hashes of files, and that a checkpoint's are the ones a recipe names."""

import hashlib
from pathlib import Path

from captioning.base.errors import UserError

SOURCE = "source.json"  # beside a checkpoint's files: which commit they are from; a recipe names files, not commits


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob(path: Path) -> str:
    """The id Git gives the file's content: SHA-1 of its kind, its length and its bytes."""
    header = f"blob {path.stat().st_size}\0".encode()
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.sha1(header, usedforsecurity=False))
    return digest.hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of `folder` but `SOURCE`, by name, sorted."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != SOURCE}


def verify(folder: Path, files: dict[str, str]) -> None:
    """Raises `UserError` where `folder` does not hold exactly `files`."""
    found = file_hashes(folder) if folder.is_dir() else {}
    moved = sorted(name for name in files.keys() | found.keys() if files.get(name) != found.get(name))
    if moved:
        raise UserError(f"{folder}: {', '.join(moved)} differ from the recipe; run `dvc repro` to make both anew")
