"""RISC's table: `captions.csv`, one row an image with its source, its split and five captions.

Comma-separated UTF-8, with or without a byte-order mark, whatever ends its lines; columns beyond `COLUMNS` are not
read. A table that is none is refused whole, every fault at once; a row that cannot be used is data/readers/rows.py's.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath

from captioning.base.errors import UserError
from captioning.base.quoting import escape, join_faults, shorten
from captioning.data.readers.rows import CAPTIONS, SPLITS, Row, SetAside

TABLE = "captions.csv"
COLUMNS = ("source", "split", "image", *CAPTIONS)
MAX_TABLE_BYTES = 256 << 20  # bytes; RISC's has 20 MB
REMEDY = f"put RISC's {TABLE} there, as UTF-8, or mend data.path in params.yaml"
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # other programs' commas
MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "an Excel workbook or a zip archive"}

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp")
NO_LINE = 0  # of a picture that the table does not name

Lines = list[tuple[int, dict[str, str]]]


def read_file(path: Path) -> Lines:
    """`read_table` of a file."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TABLE_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; {REMEDY}") from None
    if len(content) > MAX_TABLE_BYTES:
        raise UserError(f"{path}: more than {MAX_TABLE_BYTES} bytes; {REMEDY}")
    return read_table(str(path), content)


def read_table(name: str, content: bytes) -> Lines:
    """Rows with their line numbers; every fault of the table is in the one `UserError`, under `name`."""
    text = _text(name, content)
    rows = list(_rows(name, csv.reader(io.StringIO(text, newline=""), strict=True)))
    faults = [f"{name}:{line}: {fault}" for line, row in rows if (fault := _fault(row))]
    if not rows:
        faults = [f"{name}:2: no rows; every image needs one"]
    if faults:
        raise UserError(join_faults(faults))
    return rows


def _text(name: str, content: bytes) -> str:
    for mark, what in MARKS.items():
        if content.startswith(mark):
            raise UserError(f"{name}:1: this is {what}; save it as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise UserError(
            f"{name}:{line}: byte 0x{byte:02x} is no UTF-8, but may be Windows-1252; save it as CSV in UTF-8"
        ) from None


def _rows(name: str, reader: "csv.Reader") -> Iterator[tuple[int, dict[str, str]]]:  # type: ignore[name-defined]
    """Line number and fields by column of each row that is not empty; of one with other fields, None among them."""
    begun = 1
    try:
        header: list[str] = next(reader, [])
        if fault := _header_fault(header):
            raise UserError(f"{name}:1: {fault}")
        begun = reader.line_num + 1
        for fields in reader:
            if fields:
                row: dict = dict(zip(header, fields, strict=False)) | dict.fromkeys(header[len(fields) :])
                yield reader.line_num, row | ({None: fields[len(header) :]} if len(fields) > len(header) else {})
            begun = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{name}:{begun}: the row that begins here cannot be read ({error}); look for a quote that is not closed"
        ) from None


def _header_fault(header: list[str]) -> str | None:
    """What makes the first row no header of this table."""
    twice = sorted({column for column in COLUMNS if header.count(column) > 1})
    if twice:
        return f"column {', '.join(twice)} stands there twice; leave one"
    missing = [column for column in COLUMNS if column not in header]
    if not missing:
        return None
    other = [word for mark, word in SEPARATORS.items() if len(header) == 1 and mark in header[0]]
    if other:
        return f"{other[0]} separate its columns; save it with commas"
    return f"no column {', '.join(missing)}; the header must hold all of {COLUMNS}, found {_shown(header)}"


def _shown(header: list[str]) -> str:
    return f"[{', '.join(map(shorten, header[:20]))}{', …' if len(header) > 20 else ''}]"


def _fault(row: dict[str, str]) -> str | None:
    """What makes a row no row of this table."""
    name = shorten(row.get("image"))
    if None in row or None in row.values():
        return f"{name} has too {'many' if None in row else 'few'} fields; quote fields that hold commas"
    if row["split"].strip() not in SPLITS:
        return f"split {shorten(row['split'])}; use train, val, test or leave it empty"
    if not row["source"].strip():
        return f"{name} has no source; name the data set it is from"
    if escape(source := row["source"].strip()) != source:
        return f"source {shorten(source)} holds a control character; remove it"
    return None


def make_row(line: int, row: dict[str, str], read: Callable[[], bytes]) -> Row:
    """A row of the table with the way to its image's bytes."""
    captions = [row[column] for column in CAPTIONS]
    return Row(line, "", row["image"], row["source"].strip(), row["split"].strip(), captions, read)


def count_captions(rows: Lines) -> int:
    """Captions as published: fields that are not empty."""
    return sum(bool(row[column].strip()) for _, row in rows for column in CAPTIONS)


def find_uncaptioned(files: Iterable[str], rows: Lines) -> list[SetAside]:
    """Pictures among `files` that no row names."""
    named = {row["image"] for _, row in rows}
    pictures = [file for file in files if PurePath(file).suffix.lower() in IMAGE_ENDINGS and file not in named]
    return [SetAside(NO_LINE, file, f"no row of {TABLE} names it; add one with its captions") for file in pictures]
