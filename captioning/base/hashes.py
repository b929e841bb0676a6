"""Hash files, and compare a checkpoint's files with those that a recipe names."""

import hashlib
from pathlib import Path

from captioning.base.errors import UserError

SOURCE_FILE = "source.json"  # in a checkpoint: the commit of its files


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob_id(path: Path) -> str:
    """Return the id that Git gives the file's content: SHA-1 of its kind, its length and its bytes."""
    header = f"blob {path.stat().st_size}\0".encode()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of `folder` but `SOURCE_FILE`, by name, sorted."""
    return {path.name: sha256(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != SOURCE_FILE}


def require_hashes(folder: Path, files: dict[str, str]) -> None:
    """Raise `UserError` if `folder` does not hold exactly `files`."""
    hashes = file_hashes(folder) if folder.is_dir() else {}
    if changed := sorted({name for name, _ in files.items() ^ hashes.items()}):
        names = ", ".join(changed)
        raise UserError(f"{folder}: {names} differ from the recipe; run `dvc repro`, which makes both again")
