"""Read tables of images and captions: `captions.csv` (RISC), and Hugging Face's `metadata.csv`, `.jsonl`, `.parquet`.

1. A row names its image in `image`, `file_name` or `filename`. Its captions are in numbered columns (`caption_1`, ...),
   or in a single one (`caption`, `captions`, `text`). Several rows of an image are its captions together, except for a
   row of several captions that repeats one: it is a copy, and is set aside.
2. `source` and `split` are optional columns. A malformed table is refused with all its faults at once.
3. `datasets` reads the same metadata (tests/data/readers/test_forms.py compares them), but does not name the line of a
   fault, and takes a caption `NA` for a missing value.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.base.errors import UserError
from captioning.base.quoting import escape, join_faults, shorten
from captioning.data.readers.captions_csv import MAX_TABLE_BYTES, Table, parse_csv
from captioning.data.readers.names import (
    CAPTION_COLUMNS,
    NAME_COLUMNS,
    STATED_SPLITS,
    caption_columns,
    name_source,
    read_split,
    source_of_image,
)
from captioning.data.readers.rows import Annotation, group_rows

BYTES_AS_TEXT, HEAD_BYTES = b"{'bytes': b", 1 << 16  # a column of images that pandas wrote as text
SHARDS_REMEDY = "use the Parquet files of this data set, or its image files"
REMEDY = "put it there, as UTF-8, or correct data.path in params.yaml"


@dataclass(frozen=True)
class Columns:
    """The columns that hold an image's name and its captions."""

    name: str
    captions: tuple[str, ...]


def has_columns(columns: Sequence[str]) -> bool:
    """Return whether a table with `columns` names images and captions."""
    return isinstance(_find_columns(columns), Columns)


def _find_columns(header: Sequence[str]) -> Columns | str:
    """Return the columns, or which are missing."""
    name = next((column for column in NAME_COLUMNS if column in header), "")
    captions, missing = caption_columns(header)
    missing = [*([] if name else ["image"]), *missing]
    if not missing:
        return Columns(name, captions)
    columns = f"[{', '.join(map(shorten, header[:20]))}{', …' if len(header) > 20 else ''}]"
    needed = f"{' or '.join(NAME_COLUMNS)}, and caption_1, caption_2, … or {' or '.join(CAPTION_COLUMNS)}"
    return f"no column {', '.join(missing)}; the header must hold {needed}, found {columns}"


def read_table(path: Path) -> Table:
    """Read a table by its file's ending. Raises `UserError` if it cannot be read."""
    try:
        if path.suffix.lower() == ".parquet":
            return _read_parquet(path)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if BYTES_AS_TEXT in head:
                raise UserError(f"{path}: its images are bytes as text, {{'bytes': b'…, not files; {SHARDS_REMEDY}")
            content = head + file.read(MAX_TABLE_BYTES)
        if len(content) > MAX_TABLE_BYTES:
            raise UserError(f"{path}: more than {MAX_TABLE_BYTES:,} bytes, which no table of captions has")
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; {REMEDY}") from None
    parse = {".jsonl": _parse_jsonl, ".json": _parse_json}.get(path.suffix.lower(), parse_csv)
    return parse(str(path), content)


def _read_parquet(path: Path) -> Table:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged, or not a Parquet file ({reason}); fetch it again") from None
    return Table(str(path), table.column_names, list(enumerate(table.to_pylist(), start=1)))


def _parse_json(name: str, content: bytes) -> Table:
    try:
        rows = json.loads(content)
    except (ValueError, RecursionError):
        rows = None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{name}: no list of JSON objects; write one an image")
    return Table(name, list(dict.fromkeys(column for row in rows for column in row)), list(enumerate(rows, start=1)))


def _parse_jsonl(name: str, content: bytes) -> Table:
    rows = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            row = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{name}:{number}: {shorten(line)} is not a JSON object; write one a line, in UTF-8")
        rows += [(number, row)] if row else []
    return Table(name, list(dict.fromkeys(column for _, row in rows for column in row)), rows)


def annotate(table: Table, file: str, root: str) -> list[Annotation]:
    """Return the table's annotations. Raises one `UserError` with all faults.

    `file` is its path in the source, `root` the source's name for images that have no other.
    """
    columns = _find_columns(table.columns)
    if isinstance(columns, str):
        raise UserError(f"{table.name}:1: {columns}")
    faults = [f"{table.name}:{line}: {fault}" for line, row in table.rows if (fault := _row_fault(row, columns))]
    if not table.rows:
        faults = [f"{table.name}:2: no rows; every image needs one"]
    if faults:
        raise UserError(join_faults(faults))
    default = name_source(file, root)
    annotations = [_annotation(line, row, columns, file, default) for line, row in table.rows]
    return list(_merge(annotations))


def _row_fault(row: dict[Any, Any], columns: Columns) -> str | None:
    name, source, split = row.get(columns.name), row.get("source", "-"), row.get("split")
    if None in row:
        return f"{shorten(name)} has too {row[None]} fields; quote fields that hold commas"
    if not isinstance(name, str):
        return f"{columns.name} is {shorten(name)}; write the name of an image file"
    if read_split("" if split is None else str(split)) not in STATED_SPLITS:
        return f"split {shorten(split)}; use train, val, test or leave it empty"
    if not (source := str(source or "").strip()):
        return f"{shorten(name)} has no source; name the data set it is from"
    if escape(source) != source:
        return f"source {shorten(source)} holds a control character; remove it"
    wrong = [value for column in columns.captions for value in _values(row.get(column)) if not isinstance(value, str)]
    return f"{shorten(name)} has a caption {shorten(wrong[0])}; write text" if wrong else None


def _values(value: Any) -> list[Any]:
    """Return the captions in a field: none, one, or those of a list without its nulls."""
    values = value if isinstance(value, list) else [value]
    return [value for value in values if value is not None]


def _annotation(line: int, row: dict[Any, Any], columns: Columns, file: str, default: str) -> Annotation:
    name = row[columns.name]
    captions = [text for column in columns.captions for text in _values(row.get(column)) or [""]]
    source = str(row["source"]).strip() if "source" in row else source_of_image(name, default)
    split = read_split("" if row["split"] is None else str(row["split"])) if "split" in row else None
    return Annotation(line, name, captions, source, split, file, ("resized", source, split or ""))


def _merge(annotations: Sequence[Annotation]) -> Iterator[Annotation]:
    """Yield an annotation for each image, with the captions of all its rows. Rows of another source or split are not
    the same image: either there is a file for them, or they are set aside later (rows.py)."""
    keys = [(str(PurePosixPath(entry.name)), entry.source, entry.split) for entry in annotations]
    for group in group_rows(keys, [entry.captions for entry in annotations]):
        captions = [text for index in group for text in annotations[index].captions]
        yield replace(annotations[group[0]], captions=captions)
