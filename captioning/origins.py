"""Where the files of a data source stand, and whether they are there: told before any stage works.

1. A folder without `captions.csv` that holds Parquet files is read in the Hub's format: a copy of the repository.
2. Without Parquet files a revision of the Hub is not read, whatever else it holds: its own conversion is at hand.
"""

import zipfile
from pathlib import Path

from captioning import hub
from captioning.runlog import UserError

TABLE, ARCHIVE, SHARD = "captions.csv", "RISCM.zip", ".parquet"
CONVERTED = "refs/convert/parquet"  # the Hub's branch of a data set it converted


def find_archive(path: Path) -> Path:
    """RISC's archive: `path`, or `RISCM.zip` in it. Raises `UserError` where there is none."""
    found = path / ARCHIVE if path.is_dir() else path
    if not found.is_file():
        raise UserError(f"no images: {found} is not there; put RISCM.zip there, or set data.path to it")
    if not zipfile.is_zipfile(found):
        raise UserError(f"no images: {found} is no zip archive, or cut short; fetch it again")
    return found


def find_shards(folder: Path) -> dict[str, Path]:
    """The Parquet files of a folder without RISC's table, by their path in it; none where it holds the table.

    Raises `UserError` where it holds neither.
    """
    if (folder / TABLE).is_file():
        return {}
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob(f"*{SHARD}"))}
    shown = {name: path for name, path in found.items() if not any(part.startswith(".") for part in name.split("/"))}
    if not shown:
        raise UserError(
            f"no images: neither {folder / TABLE} nor Parquet files are there; unpack RISCM.zip ({TABLE} and resized/) "
            f"into {folder}, set data.source to `archive` and data.path to {ARCHIVE}, or data.source to `hub`"
        )
    return shown


def look_for_shards(repository: str, revision: str) -> tuple[hub.Snapshot, list[hub.HubFile]]:
    """A data set on the Hub and its Parquet files. Raises `UserError` where it cannot be had, or has none."""
    instead = f"set data.source to `archive` and data.path to {ARCHIVE}, or to `folder` and its folder"
    asked = hub.Repository("dataset", repository, revision, instead)
    snapshot = hub.look(asked)
    found = [file for file in snapshot.files if file.path.endswith(SHARD)]
    if not found:
        raise asked.fault(
            f"revision {revision!r} holds no Parquet file; set data.revision to {CONVERTED}, the Hub's own conversion"
        )
    return snapshot, found


def missing(source: str, path: Path, repository: str, revision: str) -> str | None:
    """None where a source's files are at hand; else one line that says what is missing and how to get it."""
    try:
        if source == "folder":
            find_shards(path)
        if source == "archive":
            find_archive(path)
        if source == "hub":
            look_for_shards(repository, revision)
    except UserError as error:
        return str(error)
    return None
