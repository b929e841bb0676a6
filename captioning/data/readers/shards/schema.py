"""Find the columns of a Parquet shard by their names or as declared, and say what is wrong with them.

A shard's schema is in its last bytes, so wrong columns are refused before an image is read or fetched.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa

from captioning.base.quoting import escape
from captioning.data.readers.names import caption_columns, split_in_path
from captioning.params.sections import Columns

TYPES = {"string": ("string", "large_string"), "binary": ("binary", "large_binary", "fixed_size_binary")}
FIELDS = {"bytes": "binary", "path": "string"}  # of an image
REMEDY = "save images with the Image feature of `datasets`, captions as strings"


class ShardColumns(NamedTuple):
    """The columns of a shard by what they hold; "": it has none."""

    image: str
    captions: tuple[str, ...]
    split: str
    source: str


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


def class_names(schema: pa.Schema, column: str) -> list[str]:
    """Return the names of a column's class labels; none if it is no class label, or not written by `datasets`."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return list(metadata["info"]["features"][column]["names"])
    except (ValueError, KeyError, TypeError):
        return []
