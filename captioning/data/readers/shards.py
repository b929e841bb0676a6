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
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.base.errors import UserError
from captioning.base.hashes import sha256
from captioning.base.quoting import escape, join_faults, shorten
from captioning.data.outputs import Origin
from captioning.data.readers import rows
from captioning.data.readers.names import (
    NAME_COLUMNS,
    SPLITS,
    Unusable,
    caption_columns,
    check_path,
    read_split,
    source_of_image,
    split_in_path,
    splits_in_paths,
)
from captioning.data.readers.rows import Row, Source
from captioning.params.sections import Columns

BATCH = 32  # images
BUFFER = 1 << 20  # bytes read ahead of a column, in place of a whole row group
ROW_ID = re.compile(r"row-\d+")
TYPES = {"string": ("string", "large_string"), "binary": ("binary", "large_binary", "fixed_size_binary")}
FIELDS = {"bytes": "binary", "path": "string"}  # of an image
REMEDY = "save images with the Image feature of `datasets`, captions as strings"


class ShardColumns(NamedTuple):
    """The columns of a shard by what they hold; "": it has none."""

    image: str
    captions: tuple[str, ...]
    split: str
    source: str


class Shard(NamedTuple):
    """An open Parquet file, and its columns."""

    file: pq.ParquetFile
    columns: ShardColumns


Shards = Mapping[str, Shard]  # by path in the repository, sorted


class Label(NamedTuple):
    """What a row says of its image; `shard` is the file on this machine, `path` the image's."""

    shard: Path
    path: str
    source: str
    split: str


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
    sample = rows.sample_rows(range(len(labels)), images, seed)
    origin: Origin = {"sha256": {path: sha256(files[path]) for path in shards}}
    source = Source(iter(()), len(sample), len(labels), _count_captions(shards), origin)
    source.images = rows.clean_images(_rows(shards, labels, set(sample)), source)
    return source


def find_columns(names: Sequence[str], declared: Columns | None) -> tuple[ShardColumns, list[str]]:
    """Return the declared columns, or those with usual names, and which of them are missing."""
    if declared is None:
        captions, missing = caption_columns(names)
        missing = [*(["image"] if "image" not in names else []), *missing]
        others = (name if name in names else "" for name in ("split", "source"))
        return ShardColumns("image", captions, *others), missing
    captions = (declared.captions,) if isinstance(declared.captions, str) else tuple(declared.captions)
    columns = ShardColumns(declared.image, captions, declared.split or "", declared.source or "")
    wanted = (columns.image, *captions, columns.split, columns.source)
    return columns, [name for name in dict.fromkeys(wanted) if name and name not in names]


def schema_faults(schemas: Mapping[str, pa.Schema], declared: Columns | None) -> list[str]:
    """Return what is wrong with the columns of each shard, by its name."""
    return [fault for name, schema in schemas.items() if (fault := _schema_fault(name, schema, declared))]


def configuration_faults(paths: Iterable[str], name: str) -> list[str]:
    """Return a line if the shards belong to several configurations."""
    groups = {_configuration(path) for path in paths}
    names = ", ".join(map(escape, sorted(groups)))
    return [f"{name}: configurations {names}; set data.path to a folder that holds one"] if len(groups) > 1 else []


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


def _schema_fault(path: str, schema: pa.Schema, declared: Columns | None) -> str | None:
    columns, missing = find_columns(schema.names, declared)
    if missing:
        names = ", ".join(map(escape, missing))
        return f"{path}: no column {names}; found {', '.join(map(escape, schema.names))}; name them in data.columns"
    image = schema.field(columns.image).type
    if not (pa.types.is_struct(image) and image.get_field_index("bytes") >= 0):
        return f"{path}: column {columns.image} is {image}, not {{bytes, path}}; {REMEDY}"
    types = {field.name: field.type for field in image}
    for name, kind in FIELDS.items():
        if name in types and not _is_kind(types[name], kind):
            return f"{path}: column {columns.image}.{name} is {types[name]}, not {kind}; {REMEDY}"
    for name in columns.captions:
        kind = schema.field(name).type
        if not _is_kind(kind.value_type if _is_list(kind) else kind, "string"):
            return f"{path}: column {name} is {kind}, not string; {REMEDY}"
    if len(set(columns.captions)) < len(columns.captions):
        return f"{path}: data.columns names a column of captions twice ({', '.join(columns.captions)}); name each once"
    for name in filter(None, (columns.split, columns.source)):
        kind = schema.field(name).type
        if not (_is_kind(kind, "string") or (pa.types.is_integer(kind) and class_names(schema, name))):
            return f"{path}: column {name} is {kind}, not string or a class label; name another in data.columns"
    return None


def _is_kind(kind: pa.DataType, name: str) -> bool:
    return str(kind).partition("[")[0] in (*TYPES[name], "null")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _configuration(path: str) -> str:
    """Return a shard's folder without one that names a split: so the Hub's conversion separates configurations."""
    parts = PurePosixPath(path).parts[:-1]
    return "/".join(parts[:-1] if parts and split_in_path(parts[-1]) else parts) or "."


def _read_labels(shards: Shards, files: Mapping[str, Path], name: str) -> Iterator[Label]:
    splits = splits_in_paths(list(shards))
    for path, shard in shards.items():
        with _explain_damage(path):
            split_column = _read_column(shard.file, shard.columns.split, splits[path])
            columns = _read_paths(shard), split_column, _read_column(shard.file, shard.columns.source, "")
        for image, split, source in zip(*columns, strict=True):
            yield Label(files[path], image, source or source_of_image(image, name), read_split(split))


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


def class_names(schema: pa.Schema, column: str) -> list[str]:
    """Return the names of a column's class labels; none if it is no class label, or not written by `datasets`."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return list(metadata["info"]["features"][column]["names"])
    except (ValueError, KeyError, TypeError):
        return []


def _label_faults(labels: Sequence[Label], name: str) -> list[str]:
    splits = sorted({(label.shard, label.split) for label in labels if label.split not in SPLITS})
    sources = sorted({(label.shard, label.source) for label in labels if escape(label.source) != label.source})
    return [
        *([] if labels else [f"{name}: no rows; every image needs one"]),
        *(f"{shard}: split {shorten(split)}; use train, val, test or leave it empty" for shard, split in splits),
        *(f"{shard}: source {shorten(source)} holds a control character; remove it" for shard, source in sources),
    ]


def _count_captions(shards: Shards) -> int:
    """Count the captions as published, which are not empty, with one column in memory at a time."""
    count = 0
    for path, shard in shards.items():
        for column in shard.columns.captions:
            with _explain_damage(path):
                values = shard.file.read(columns=[column])[column].to_pylist()
            count += sum(rows.count_captions(_texts(value)) for value in values)
    return count


def _texts(value: str | list[str | None] | None) -> list[str]:
    """Return the captions in a field."""
    return [text or "" for text in (value if isinstance(value, list) else [value])]


def _rows(shards: Shards, labels: Sequence[Label], sample: set[int]) -> Iterator[Row]:
    ids = _make_ids([label.path for label in labels])
    streams = (_stream(path, shard) for path, shard in shards.items())
    for index, (image, captions) in enumerate(chain.from_iterable(streams)):
        if index in sample:
            label, name = labels[index], PurePosixPath(labels[index].path).name
            encoded = (image or {}).get("bytes")
            if ids[index] != Path(name).stem:
                name = ids[index] + (".png" if (encoded or b"").startswith(b"\x89PNG") else ".jpg")
            yield Row(index + 1, ids[index], name, label.source, label.split, captions, partial(_require, encoded))


def _make_ids(paths: Sequence[str]) -> list[str]:
    stems = [_valid_stem(path) for path in paths]
    counts = Counter(stems)
    return [stem if stem and counts[stem] == 1 else f"row-{row:06d}" for row, stem in enumerate(stems, start=1)]


def _valid_stem(path: str) -> str:
    """Return the image's file name without its extension, or "" if that is not a valid id."""
    try:
        stem = PurePosixPath(check_path(PurePosixPath(path).name)).stem
    except Unusable:
        return ""
    return "" if ROW_ID.fullmatch(stem) else stem


def _stream(path: str, shard: Shard) -> Iterator[tuple[dict[str, Any] | None, list[str]]]:
    """Yield the image and the captions of each row."""
    image, captions = shard.columns.image, shard.columns.captions
    with _explain_damage(path):
        for batch in shard.file.iter_batches(batch_size=BATCH, columns=[image, *captions]):
            for row in batch.to_pylist():
                yield row[image], [text for column in captions for text in _texts(row[column])]


def _require(encoded: bytes | None) -> bytes:
    if not encoded:
        raise Unusable("holds no image bytes")
    rows.check_size(len(encoded))
    return encoded
