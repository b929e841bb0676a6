"""Read captioned images in the Hub's format: Parquet shards as `datasets` writes and the Hub converts them.

Columns are `image` (`{bytes, path}`) and captions (`caption_1`, `caption_2`, ..., or one column of texts or of lists),
with or without `source` and `split`; `data.columns` names others. Metadata and text are read once, images in batches,
whatever the size of a row group.

1. `split` is the column, else the split in the shard's name if the shards name several, else "": a single split that
   holds every image means nothing.
2. `source` is the column, else the prefix of an image's name of RISC's form `<SOURCE>_<index>.jpg`, else the
   repository's name.
3. An image's name is its path, else the column `file_name` or `filename`. An id is that name without folders and
   extension if that is a valid id and unique, else the row's number among all shards, `row-000012`: two images of one
   name may differ, since their folders are lost here.
4. Rows of the same bytes, name, source and split are one image with all their captions, as in tables. The same bytes in
   several splits stay several images, which the stage `split` brings together.
5. A row whose image has the name of a hidden or system file is passed over.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.base.errors import UserError
from captioning.base.hashes import sha256
from captioning.base.quoting import escape, join_faults, shorten
from captioning.data.outputs import Origin
from captioning.data.readers import rows
from captioning.data.readers.names import (
    NAME_COLUMNS,
    STATED_SPLITS,
    Unusable,
    check_path,
    is_system_file,
    read_split,
    source_of_image,
    splits_in_paths,
)
from captioning.data.readers.rows import Row, Source
from captioning.data.readers.shards.schema import (
    ShardColumns,
    class_names,
    configuration_faults,
    find_columns,
    schema_faults,
)
from captioning.params.sections import Columns

BATCH = 32  # images
BUFFER = 1 << 20  # bytes read ahead of a column, in place of a whole row group
ROW_ID = re.compile(r"row-\d+")


class Shard(NamedTuple):
    """An open Parquet file, and its columns."""

    file: pq.ParquetFile
    columns: ShardColumns


Shards = Mapping[str, Shard]  # by path in the repository, sorted


class Label(NamedTuple):
    """What a row says of its image; `shard` is the file on this machine, `path` the image's, `row` counts from 1."""

    row: int
    shard: Path
    path: str
    source: str
    split: str
    captions: Sequence[str]


def read_shards(
    files: Mapping[str, Path],
    name: str,
    images: int | None = None,
    seed: int = 0,
    columns: Columns | None = None,
) -> Source:
    """Read Parquet files: all rows, or a seeded sample of `images` rows.

    `files` are keyed by their paths in the repository, which may name a split; `name` is the source of a row without
    another; `columns`: None finds them by their names. Raises `UserError` at once if a shard is unreadable or of
    another format.
    """
    shards = {path: _open(files[path], columns) for path in sorted(files)}
    schemas = {str(files[path]): shard.file.schema_arrow for path, shard in shards.items()}
    faults = schema_faults(schemas, columns) + configuration_faults(files, name)
    labels = [] if faults else list(_read_labels(shards, files, name))
    if faults := faults or _label_faults(labels, name):
        raise UserError(join_faults(faults))
    merged = _merge(labels, _read_digests(shards, labels))
    sample = rows.sample_rows(merged, images, seed)
    origin: Origin = {"sha256": {path: sha256(files[path]) for path in shards}}
    captions = sum(rows.count_captions(label.captions) for _, label in merged)
    source = Source(iter(()), len(sample), len(merged), captions, origin)
    source.images = rows.clean_images(_rows(shards, sample), source)
    return source


def _open(path: Path, declared: Columns | None) -> Shard:
    with _explain_damage(str(path)):
        file = pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)
        return Shard(file, find_columns(file.schema_arrow.names, declared)[0])


@contextmanager
def _explain_damage(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: damaged, or not a Parquet file ({reason}); fetch it again") from None


def _read_labels(shards: Shards, files: Mapping[str, Path], name: str) -> Iterator[Label]:
    """Yield what each row says, without hidden and system files."""
    splits, row = splits_in_paths(list(shards)), 0
    for path, shard in shards.items():
        with _explain_damage(path):
            split_column = _read_column(shard.file, shard.columns.split, splits[path])
            columns = _read_paths(shard), split_column, _read_column(shard.file, shard.columns.source, "")
            captions = _read_captions(shard)
        for image, split, source, texts in zip(*columns, captions, strict=True):
            row += 1
            if not is_system_file(image):
                source = source or source_of_image(image, name)
                yield Label(row, files[path], image, source, read_split(split), texts)


def _read_paths(shard: Shard) -> list[str]:
    """Return each image's path, from the image itself or, where that has none, from a column of names."""
    (file, columns), schema = shard, shard.file.schema_arrow
    name = next((name for name in NAME_COLUMNS if name in schema.names and name != columns.image), "")
    names = _read_column(file, name, "")
    if schema.field(columns.image).type.get_field_index("path") < 0:
        return names
    images = file.read(columns=[f"{columns.image}.path"])[columns.image].to_pylist()
    return [(image or {}).get("path") or other for image, other in zip(images, names, strict=True)]


def _read_column(shard: pq.ParquetFile, column: str, default: str) -> list[str]:
    """Return a column as text without outer spaces, with the names of class labels; `default` if there is none."""
    if not column:
        return [default] * shard.metadata.num_rows
    values, names = shard.read(columns=[column])[column].to_pylist(), class_names(shard.schema_arrow, column)
    texts = [names[value] if isinstance(value, int) and 0 <= value < len(names) else value for value in values]
    return ["" if text is None else str(text).strip() for text in texts]


def _label_faults(labels: Sequence[Label], name: str) -> list[str]:
    splits = sorted({(label.shard, label.split) for label in labels if label.split not in STATED_SPLITS})
    sources = sorted({(label.shard, label.source) for label in labels if escape(label.source) != label.source})
    return [
        *([] if labels else [f"{name}: no rows; every image needs one"]),
        *(f"{shard}: split {shorten(split)}; use train, val, test or leave it empty" for shard, split in splits),
        *(f"{shard}: source {shorten(source)} holds a control character; remove it" for shard, source in sources),
    ]


def _read_captions(shard: Shard) -> list[list[str]]:
    """Return the captions of each row."""
    columns = [shard.file.read(columns=[column])[column].to_pylist() for column in shard.columns.captions]
    return [[text for value in row for text in _texts(value)] for row in zip(*columns, strict=True)]


def _texts(value: str | list[str | None] | None) -> list[str]:
    """Return the captions in a field."""
    return [text or "" for text in (value if isinstance(value, list) else [value])]


def _read_digests(shards: Shards, labels: Sequence[Label]) -> dict[int, bytes]:
    """Return a hash of the bytes of each row whose name does not tell its image from those of others."""
    counts = Counter(label.path for label in labels)
    wanted = {label.row for label in labels if not label.path or counts[label.path] > 1}
    images = _stream(shards) if wanted else ()
    return {row: hashlib.sha256(encoded).digest() for row, encoded in images if row in wanted and encoded}


def _merge(labels: Sequence[Label], digests: Mapping[int, bytes]) -> list[tuple[str, Label]]:
    """Return the id of each image, and its first row with the captions of all its rows."""
    keys = [(label.path, digests.get(label.row, label.row), label.source, label.split) for label in labels]
    first: dict[tuple, Label] = {}
    for key, label in zip(keys, labels, strict=True):
        first.setdefault(key, label)
    ids = dict(zip(first, _make_ids(list(first.values())), strict=True))
    merged = []
    for group in rows.group_rows(keys, [label.captions for label in labels]):
        captions = [text for index in group for text in labels[index].captions]
        merged.append((ids[keys[group[0]]], labels[group[0]]._replace(captions=captions)))
    return merged


def _rows(shards: Shards, images: Sequence[tuple[str, Label]]) -> Iterator[Row]:
    by_row = {label.row: (id_, label) for id_, label in images}
    for row, encoded in _stream(shards):
        if row in by_row:
            id_, label = by_row[row]
            name = PurePosixPath(label.path).name
            if id_ != Path(name).stem:
                name = id_ + (".png" if (encoded or b"").startswith(b"\x89PNG") else ".jpg")
            yield Row(row, id_, name, label.source, label.split, label.captions, partial(_require, encoded))


def _make_ids(labels: Sequence[Label]) -> list[str]:
    stems = [_valid_stem(label.path) for label in labels]
    counts, pairs = Counter(stems), zip(stems, labels, strict=True)
    return [stem if stem and counts[stem] == 1 else f"row-{label.row:06d}" for stem, label in pairs]


def _valid_stem(path: str) -> str:
    """Return the image's file name without its extension, or "" if that is not a valid id."""
    try:
        stem = PurePosixPath(check_path(PurePosixPath(path).name)).stem
    except Unusable:
        return ""
    return "" if ROW_ID.fullmatch(stem) else stem


def _stream(shards: Shards) -> Iterator[tuple[int, bytes | None]]:
    """Yield the number of each row, and the bytes of its image."""
    row = 0
    for path, shard in shards.items():
        with _explain_damage(path):
            for batch in shard.file.iter_batches(batch_size=BATCH, columns=[shard.columns.image]):
                for image in batch[shard.columns.image].to_pylist():
                    row += 1
                    yield row, (image or {}).get("bytes")


def _require(encoded: bytes | None) -> bytes:
    if not encoded:
        raise Unusable("holds no image bytes")
    rows.check_size(len(encoded))
    return encoded
