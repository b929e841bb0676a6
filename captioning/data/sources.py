"""The images of the profile's source: whether its files are at hand, told before any stage works; opened and counted.

1. A folder without `captions.csv` that holds Parquet files is read in the Hub's format: a copy of the repository.
2. Without Parquet files a revision of the Hub is not read, whatever else it holds: its own conversion is at hand.
"""

import zipfile
from pathlib import Path

from captioning.base.errors import UserError
from captioning.base.paths import DOWNLOADS
from captioning.data import hub
from captioning.data.readers.archive import read_archive
from captioning.data.readers.captions_csv import TABLE
from captioning.data.readers.drawn import draw_world
from captioning.data.readers.folder import read_folder
from captioning.data.readers.rows import Source
from captioning.data.readers.shards import read_shards
from captioning.params.load import Data, Declared

PARQUET, RAW = Path("data/captions/images.parquet"), Path("data/raw")
ARCHIVE, SHARD = "RISCM.zip", ".parquet"
PARQUET_BRANCH = "refs/convert/parquet"  # the Hub's branch of a data set it converted


def open_source(data: Data) -> Source:
    """The drawn world, a folder, an archive, or the Hub. Raises `UserError` where the source cannot be had, or
    does not hold what it is declared to hold."""
    source = _opened(data)
    _check_declared(data.declared, source, data.source)
    return source


def _opened(data: Data) -> Source:
    path, draw = Path(data.path), (data.images, data.seed)
    if data.source == "overhead":
        return draw_world(data.images, data.image_size, data.seed)
    if data.source == "archive":
        return read_archive(find_archive(path), *draw)
    if data.source == "folder":
        _refuse_link(path / "resized")
        found = find_shards(path)
        return read_shards(found, path.name, *draw) if found else read_folder(path, *draw)
    snapshot, wanted = find_hub_shards(data.repository, data.revision)
    downloads = DOWNLOADS / "datasets" / data.repository.replace("/", "--")
    there = hub.fetch_files(snapshot, wanted, downloads)
    source = read_shards(there, data.repository.rpartition("/")[2], *draw)
    source.origin |= {"repository": data.repository, "revision": data.revision, "commit": snapshot.commit}
    return source


def _refuse_link(pictures: Path) -> None:
    """DVC follows no link to a folder, so it would take the stage for up to date whatever changed there."""
    if RAW in pictures.parents and pictures.is_symlink() and pictures.is_dir():
        raise UserError(
            f"{pictures} is a link to a folder, behind which DVC sees no change; put the images there, or set "
            f"data.path to the folder above {pictures.resolve()} and run `dvc repro -f download` after a change"
        )


def _check_declared(declared: Declared | None, source: Source, kind: str) -> None:
    """Raises `UserError` where the source does not hold what params.yaml says it must, all differences at once."""
    if declared is None:
        return
    found = {"images": source.rows, "captions": source.captions}
    if declared.sha256 and kind == "archive":
        found["sha256"] = source.origin["sha256"]
    wrong = [
        f"{value} {key} where data.declared says {getattr(declared, key)}"
        for key, value in found.items()
        if value != getattr(declared, key)
    ]
    if wrong:
        raise UserError(f"the {kind} holds {' and '.join(wrong)}; mend the {kind}, or set data.declared to null")


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


def find_hub_shards(repository: str, revision: str) -> tuple[hub.Snapshot, list[hub.HubFile]]:
    """A data set on the Hub and its Parquet files. Raises `UserError` where it cannot be had, or has none."""
    instead = f"set data.source to `archive` and data.path to {ARCHIVE}, or to `folder` and its folder"
    asked = hub.Repository("dataset", repository, revision, instead)
    snapshot = hub.resolve_revision(asked)
    found = [file for file in snapshot.files if file.path.endswith(SHARD)]
    if not found:
        raise asked.error(
            f"revision {revision!r} holds no Parquet file; set data.revision to {PARQUET_BRANCH}, the Hub's conversion"
        )
    return snapshot, found


def explain_missing(source: str, path: Path, repository: str, revision: str) -> str | None:
    """None where a source's files are at hand; else one line that says what is missing and how to get it."""
    try:
        if source == "folder":
            find_shards(path)
        if source == "archive":
            find_archive(path)
        if source == "hub":
            find_hub_shards(repository, revision)
    except UserError as error:
        return str(error)
    return None
