"""Open the profile's source of images, and explain what it lacks before any stage works.

1. A folder is read in the form that lies there (readers/folder/forms.py).
2. Of a repository on the Hub, only Parquet files are read. The Hub converts any other data set to Parquet itself. Their
   columns are known from a shard's last bytes, so wrong ones are refused before a shard is fetched.
"""

import os
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.base.errors import UserError
from captioning.base.quoting import join_faults
from captioning.data import hub
from captioning.data.readers.archive import read_archive
from captioning.data.readers.drawn import draw_world
from captioning.data.readers.folder.forms import SHARDS, find_form, read_folder, refuse_columns
from captioning.data.readers.names import is_system_file
from captioning.data.readers.rows import Source
from captioning.data.readers.shards.read import read_shards
from captioning.data.readers.shards.schema import configuration_faults, schema_faults
from captioning.params.sections import Data
from captioning.runtime.paths import DOWNLOADS, exclusive_folder, is_copy, main_folder

PARQUET, RAW = Path("data/captions/images.parquet"), Path("data/raw")
ARCHIVE = "RISCM.zip"
UNTRACKED = (
    "this is an experiment's copy of the project, with what git and DVC track: run `dvc add` for your images and "
    "commit the .dvc file, or give `dvc exp run` the option --copy-paths with each of them"
)
FOOTER_BYTES = 1 << 16  # of a shard; most schemas are smaller
PARQUET_BRANCH = "refs/convert/parquet"  # where the Hub keeps its conversion of a data set


def open_source(data: Data) -> Source:
    """Open the drawn world, a folder, an archive or the Hub. Raises `UserError` if it is missing or not as declared."""
    source, declared = _open(data), data.declared
    source.bands = tuple(data.bands) if data.bands else None
    if declared is None:
        return source
    actual: dict[str, object] = {"images": source.rows, "captions": source.captions}
    if declared.sha256 and data.source == "archive":
        actual["sha256"] = source.origin["sha256"]
    differences = [
        f"{value} {key} where data.declared says {getattr(declared, key)}"
        for key, value in actual.items()
        if value != getattr(declared, key)
    ]
    if differences:
        fault = f"the {data.source} holds {' and '.join(differences)}"
        raise UserError(f"{fault}; correct it, or set data.declared to null")
    return source


def _open(data: Data) -> Source:
    path, draw = Path(data.path), (data.images, data.seed)
    if data.source == "overhead":
        return draw_world(data.images, data.image_size, data.seed)
    if data.source == "archive":
        return read_archive(find_archive(path), *draw)
    if data.source == "folder":
        _refuse_links(path)
        return read_folder(path, *draw, data.columns)
    snapshot, files = find_hub_shards(data)
    with exclusive_folder(folder := _downloads(data.repository)):
        shards = hub.fetch_files(snapshot, files, folder)
    source = read_shards(shards, data.repository.rpartition("/")[2], *draw, data.columns)
    source.origin |= {"repository": data.repository, "revision": data.revision, "commit": snapshot.commit}
    return source


def _downloads(repository: str) -> Path:
    return main_folder(DOWNLOADS) / "datasets" / repository.replace("/", "--")


def _refuse_links(folder: Path) -> None:
    """Refuse a link to a folder below `RAW`: DVC does not follow it, and would not notice a change of the images."""
    if folder != RAW and RAW not in folder.parents:
        return
    for parent, names, _ in os.walk(folder):
        if links := [link for name in names if (link := Path(parent, name)).is_symlink()]:
            raise UserError(
                f"{links[0]} is a link to a folder, in which DVC sees no change; put the images there, or set "
                f"data.path to the folder above {links[0].resolve()} and run `dvc repro -f download` after a change"
            )


def find_archive(path: Path) -> Path:
    """Return RISC's archive: `path`, or `RISCM.zip` in it. Raises `UserError` if it is missing or damaged."""
    archive = path / ARCHIVE if path.is_dir() else path
    if not archive.is_file():
        raise UserError(f"no images: {archive} does not exist; put {ARCHIVE} there, or set data.path to it")
    if not zipfile.is_zipfile(archive):
        raise UserError(f"no images: {archive} is not a zip archive, or incomplete; fetch it again")
    return archive


def find_hub_shards(data: Data) -> tuple[hub.Snapshot, list[hub.HubFile]]:
    """Return a data set's revision on the Hub and its Parquet files. Raises `UserError` if these cannot be read."""
    alternative = f"set data.source to `archive` and data.path to {ARCHIVE}, or to `folder` and its folder"
    wanted = hub.Repository("dataset", data.repository, data.revision, alternative)
    snapshot = hub.resolve_revision(wanted, _downloads(data.repository))
    shards = [file for file in snapshot.files if file.path.endswith(".parquet") and not is_system_file(file.path)]
    if not shards:
        raise snapshot.repository.error(
            f"{snapshot.label} holds no Parquet file; set data.revision to {PARQUET_BRANCH}, the Hub's conversion"
        )
    faults = configuration_faults([file.path for file in shards], data.repository)
    if faults := faults or schema_faults(_read_schemas(snapshot, shards), data.columns):
        raise UserError(join_faults(faults))
    return snapshot, shards


def _read_schemas(snapshot: hub.Snapshot, shards: Sequence[hub.HubFile]) -> dict[str, pa.Schema]:
    """Return the schema of the first shard of each split, from its last bytes: before a shard is fetched."""
    first = {re.split(r"\d", shard.path)[0]: shard for shard in reversed(shards)}
    return {f"{snapshot.repository.name}/{shard.path}": _read_schema(snapshot, shard) for shard in first.values()}


def _read_schema(snapshot: hub.Snapshot, shard: hub.HubFile) -> pa.Schema:
    """Return the schema in a Parquet file's footer, whose length is before the file's last four bytes."""
    folder = _downloads(snapshot.repository.name)
    tail = hub.read_tail(snapshot, shard, FOOTER_BYTES, folder)
    if (needed := int.from_bytes(tail[-8:-4], "little") + 8) > len(tail):
        tail = hub.read_tail(snapshot, shard, needed, folder)
    try:
        return pq.read_schema(pa.BufferReader(tail))
    except (OSError, pa.ArrowException):
        raise snapshot.repository.error(f"{shard.path} is damaged, or not a Parquet file") from None


def explain_missing(data: Data) -> str | None:
    """Return None if the source's files can be read, else one line that says what is missing and how to get it."""
    try:
        if data.source == "folder":
            form = find_form(Path(data.path))
            refuse_columns(None if form == SHARDS else data.columns, f"{data.path} holds {form}")
        if data.source == "archive":
            find_archive(Path(data.path))
        if data.source == "hub":
            find_hub_shards(data)
    except UserError as error:
        return hub.explain(error) if data.source == "hub" or not is_copy() else f"{error}; {UNTRACKED}"
    return None
