"""Captioned images in the Hub's own format: Parquet shards as `datasets` writes and the Hub converts them.

Columns `image` (`{bytes, path}`) and `caption_1` to `caption_5`, with or without `source` and `split`. Metadata and
text are read once, images batch by batch, whatever the size of a row group.

1. `split`: the column, else the shard's name where the repository has several splits, else none: a single one that
   everything is in says nothing.
2. `source`: the column, else the image's name where it has RISC's form `<SOURCE>_<index>.jpg`, else the repository's.
3. An id is the image's file name without its extension where that is fit for one and no other image has it, else the
   row's number among all shards, `row-000012`: two images of one name need not be one image (folders are lost here).
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.base.errors import UserError
from captioning.base.hashes import sha256
from captioning.base.quoting import escape, join_faults, shorten
from captioning.data.readers.rows import (
    CAPTIONS,
    SPLITS,
    Row,
    Source,
    Unusable,
    check_name,
    check_size,
    clean_images,
    sample_rows,
)

BATCH = 32  # images
BUFFER = 1 << 20  # bytes read ahead of a column, in place of a whole row group
OWN_NAMES = {"train": "train", "validation": "val", "valid": "val", "val": "val", "test": "test"}  # the Hub's to RISC's
RISC_NAME = re.compile(r"([A-Z][A-Z0-9]+)_\d+\.jpe?g")
ROW_ID = re.compile(r"row-\d+")

Labels = dict[str, list[str]]  # of the columns one row each, in the shards' order


def read_shards(files: Mapping[str, Path], name: str, images: int | None = None, seed: int = 0) -> Source:
    """The images of Parquet files: all, or a seeded draw of `images` rows.

    Args:
        files: where each shard lies, by its path in the repository, which tells its split.
        name: what a row's source is called where nothing else tells it.

    Raises:
        UserError: at once where a shard cannot be read, or lacks a column.
    """
    opened = {path: _open(files[path]) for path in sorted(files)}
    faults = [fault for path, file in opened.items() if (fault := _fault(files[path], file))]
    if len(groups := {_configuration(path) for path in files}) > 1:
        faults.append(f"{name}: configurations {', '.join(sorted(groups))}; set data.path to a folder that holds one")
    labels = {} if faults else _labels(opened, files, name)
    if faults := faults or _wrong_labels(labels, name):
        raise UserError(join_faults(faults))
    rows = sample_rows(range(len(labels["split"])), images, seed)
    origin = {"sha256": {path: sha256(files[path]) for path in sorted(files)}}
    source = Source(iter(()), len(rows), len(labels["split"]), _count(opened), origin)
    source.images = clean_images(_rows(opened, labels, rows), source)
    return source


def _open(path: Path) -> pq.ParquetFile:
    with _reading(str(path)):
        return pq.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False)


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(
            f"{name}: damaged, or no Parquet file ({' '.join(str(error).split())}); fetch it again"
        ) from None


def _fault(path: Path, file: pq.ParquetFile) -> str | None:
    schema = file.schema_arrow
    missing = [column for column in ("image", *CAPTIONS) if column not in schema.names]
    if missing:
        return f"{path}: no column {', '.join(missing)}; found {', '.join(schema.names)}"
    image = schema.field("image").type
    if not (pa.types.is_struct(image) and image.get_field_index("bytes") >= 0):
        return f"{path}: column image is {image}, not {{bytes, path}}; save it with the Image feature of `datasets`"
    if fault := _image_fault(image):
        return f"{path}: column {fault}; save it with the Image feature of `datasets`"
    wrong = [column for column in CAPTIONS if not _is_text(schema.field(column).type)]
    return f"{path}: column {', '.join(wrong)} holds no text" if wrong else None


def _image_fault(image: pa.StructType) -> str | None:
    """Which field of column image is of another type than the Hub's, and what it should be."""
    if not _is_bytes(kind := image.field("bytes").type):
        return f"image.bytes is {kind}, not binary"
    if image.get_field_index("path") >= 0 and not _is_text(kind := image.field("path").type):
        return f"image.path is {kind}, not string"
    return None


def _is_bytes(kind: pa.DataType) -> bool:
    variable = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return variable or pa.types.is_fixed_size_binary(kind) or pa.types.is_null(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)


def _configuration(path: str) -> str:
    """The folder a shard is in, less one that names a split: the Hub's conversion keeps configurations apart so."""
    parts = PurePosixPath(path).parts[:-1]
    return "/".join(parts[:-1] if parts and _split_named(parts[-1]) else parts) or "."


def _split_named(path: str) -> str:
    """RISC's name of the split that a path names last, or ""."""
    words = [OWN_NAMES[word] for word in re.split(r"[^a-z]+", path.lower()) if word in OWN_NAMES]
    return words[-1] if words else ""


def _labels(opened: Mapping[str, pq.ParquetFile], files: Mapping[str, Path], name: str) -> Labels:
    """Shard, id, file name, source and split of every row."""
    several = len({_split_named(path) for path in opened}) > 1
    labels: Labels = {"shard": [], "path": [], "source": [], "split": []}
    for path, file in opened.items():
        with _reading(path):
            paths, splits, named = _paths(file), _column(file, "split"), _column(file, "source")
        labels["shard"] += [str(files[path])] * len(paths)
        labels["path"] += paths
        own = [_split_named(path) if several else ""] * len(paths)
        labels["split"] += [OWN_NAMES.get(split, split) for split in splits or own]
        found = (RISC_NAME.fullmatch(PurePosixPath(of_image).name) for of_image in paths)
        prefixes = [match[1] if match else name for match in found]
        named = named or prefixes
        labels["source"] += [one or prefix for one, prefix in zip(named, prefixes, strict=True)]
    labels["id"] = _ids(labels["path"])
    return labels


def _paths(file: pq.ParquetFile) -> list[str]:
    if file.schema_arrow.field("image").type.get_field_index("path") < 0:
        return [""] * file.metadata.num_rows
    table = file.read(columns=["image.path"])
    return [(image or {}).get("path") or "" for image in table["image"].to_pylist()]


def _column(file: pq.ParquetFile, column: str) -> list[str] | None:
    """A column as text without outer spaces, labels of `datasets` by their names; None where there is none."""
    if column not in file.schema_arrow.names:
        return None
    values, names = file.read(columns=[column])[column].to_pylist(), _class_names(file, column)
    named = [names[value] if isinstance(value, int) and 0 <= value < len(names) else value for value in values]
    return ["" if value is None else str(value).strip() for value in named]


def _class_names(file: pq.ParquetFile, column: str) -> list[str]:
    try:
        told = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        return list(told["info"]["features"][column]["names"])
    except (ValueError, KeyError, TypeError):
        return []


def _ids(paths: Sequence[str]) -> list[str]:
    stems = [_stem(path) for path in paths]
    times = Counter(stems)
    return [
        stem if stem and times[stem] == 1 else f"row-{number:06d}" for number, stem in enumerate(stems, start=1)
    ]  # fmt: skip


def _stem(path: str) -> str:
    """An id out of an image's path, or ""."""
    try:
        stem = Path(check_name(PurePosixPath(path).name)).stem
    except Unusable:
        return ""
    return "" if ROW_ID.fullmatch(stem) or any(map(str.isspace, stem)) else stem


def _wrong_labels(labels: Labels, name: str) -> list[str]:
    if not labels["split"]:
        return [f"{name}: no rows; every image needs one"]
    splits, sources = (set(zip(labels["shard"], labels[column], strict=True)) for column in ("split", "source"))
    wrong = [f"{shard}: column split holds {shorten(split)}; use train, val, test or leave it empty"
             for shard, split in sorted(splits) if split not in SPLITS]  # fmt: skip
    return wrong + [f"{shard}: source {shorten(source)} holds a control character; remove it"
                    for shard, source in sorted(sources) if escape(source) != source]  # fmt: skip


def _count(opened: Mapping[str, pq.ParquetFile]) -> int:
    """Captions as published: fields that are not empty, one column in memory at a time."""
    counted = 0
    for path, file in opened.items():
        for column in CAPTIONS:
            with _reading(path):
                texts = file.read(columns=[column])[column].to_pylist()
            counted += sum(bool(text.strip()) for text in texts if text)
    return counted


def _rows(opened: Mapping[str, pq.ParquetFile], labels: Labels, chosen: Sequence[int]) -> Iterator[Row]:
    wanted = set(chosen)
    for number, row in enumerate(_stream(opened)):
        if number in wanted:
            image = row["image"] or {}
            told = {key: labels[key][number] for key in ("id", "source", "split")}
            name = PurePosixPath(labels["path"][number]).name
            captions = [row[column] or "" for column in CAPTIONS]
            encoded = image.get("bytes")
            name = name if told["id"] == Path(name).stem else f"{told['id']}{_suffix(encoded)}"
            yield Row(number + 1, name=name, captions=captions, read=partial(_read, encoded), **told)


def _stream(opened: Mapping[str, pq.ParquetFile]) -> Iterator[dict[str, Any]]:
    for path, file in opened.items():
        with _reading(path):
            for batch in file.iter_batches(batch_size=BATCH, columns=["image", *CAPTIONS]):
                yield from batch.to_pylist()


def _suffix(encoded: bytes | None) -> str:
    return ".png" if (encoded or b"").startswith(b"\x89PNG") else ".jpg"


def _read(encoded: bytes | None) -> bytes:
    if not encoded:
        raise Unusable("holds no image bytes")
    check_size(len(encoded))
    return encoded
