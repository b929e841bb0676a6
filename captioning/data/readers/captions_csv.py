"""Read RISC's table: `captions.csv`, one row an image with its source, its split and five captions.

It is comma-separated UTF-8, with or without a byte-order mark, with any line ends; columns beyond `COLUMNS` are not
read. A malformed table is refused with all its faults at once; readers/rows.py sets single rows aside.
"""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from captioning.base.errors import UserError
from captioning.base.quoting import escape, join_faults, shorten
from captioning.data.readers.rows import CAPTIONS, SPLITS, Row, SetAside, Source, clean_images, sample_rows

TABLE = "captions.csv"
COLUMNS = ("source", "split", "image", *CAPTIONS)
MAX_TABLE_BYTES = 256 << 20  # in an archive; RISC's has 20 MB
REMEDY = f"put RISC's {TABLE} there, as UTF-8, or correct data.path in params.yaml"
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # of other programs
SIGNATURES = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "an Excel workbook or a zip archive"}
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp")

Lines = list[tuple[int, dict[str, str]]]  # line number, and fields by column
ReadImage = Callable[[str], bytes]  # by the file's name


def read_file(path: Path) -> Lines:
    """Read the table in `path`; see `read_table`."""
    try:
        return read_table(str(path), path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; {REMEDY}") from None


def read_table(name: str, content: bytes) -> Lines:
    """Return the rows with their line numbers. Raises one `UserError` with all faults, under `name`."""
    rows = list(_parse_rows(name, csv.reader(io.StringIO(_decode(name, content), newline=""), strict=True)))
    faults = [f"{name}:{line}: {fault}" for line, row in rows if (fault := _row_fault(row))]
    if not rows:
        faults = [f"{name}:2: no rows; every image needs one"]
    if faults:
        raise UserError(join_faults(faults))
    return rows


def _decode(name: str, content: bytes) -> str:
    for signature, kind in SIGNATURES.items():
        if content.startswith(signature):
            raise UserError(f"{name}:1: this is {kind}; save it as CSV in UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise UserError(
            f"{name}:{line}: byte 0x{byte:02x} is not UTF-8, but may be Windows-1252; save it as CSV in UTF-8"
        ) from None


def _parse_rows(name: str, reader: Any) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and fields by column of each row that is not empty; a wrong number of fields leaves a None."""
    first_line = 1  # of the row that is read
    try:
        header: list[str] = next(reader, [])
        if fault := _header_fault(header):
            raise UserError(f"{name}:1: {fault}")
        first_line = reader.line_num + 1
        for fields in reader:
            if fields:
                row: dict = dict(zip(header, fields, strict=False)) | dict.fromkeys(header[len(fields) :])
                yield reader.line_num, row | ({None: fields[len(header) :]} if len(fields) > len(header) else {})
            first_line = reader.line_num + 1
    except csv.Error as error:
        fault = f"the row that begins here cannot be read ({error}); look for a quote that is not closed"
        raise UserError(f"{name}:{first_line}: {fault}") from None


def _header_fault(header: list[str]) -> str | None:
    if repeated := sorted({column for column in COLUMNS if header.count(column) > 1}):
        return f"column {', '.join(repeated)} occurs twice; leave one"
    missing = [column for column in COLUMNS if column not in header]
    if not missing:
        return None
    for mark, separators in SEPARATORS.items():
        if len(header) == 1 and mark in header[0]:
            return f"{separators} separate its columns; save it with commas"
    columns = f"[{', '.join(map(shorten, header[:20]))}{', …' if len(header) > 20 else ''}]"
    return f"no column {', '.join(missing)}; the header must hold all of {COLUMNS}, found {columns}"


def _row_fault(row: dict[str, str]) -> str | None:
    name = shorten(row.get("image"))
    if None in row or None in row.values():
        return f"{name} has too {'many' if None in row else 'few'} fields; quote fields that hold commas"
    source, split = row["source"].strip(), row["split"]
    if split.strip() not in SPLITS:
        return f"split {shorten(split)}; use train, val, test or leave it empty"
    if not source:
        return f"{name} has no source; name the data set it is from"
    return f"source {shorten(source)} holds a control character; remove it" if escape(source) != source else None


def open_table(table: Lines, files: Iterable[str], images: int | None, seed: int, read_image: ReadImage) -> Source:
    """Return a source of all rows or a seeded sample; images among `files` that no row names are set aside, line 0."""
    sample, named = sample_rows(table, images, seed), {row["image"] for _, row in table}
    captions = sum(bool(row[column].strip()) for _, row in table for column in CAPTIONS)
    source = Source(iter(()), len(sample), len(table), captions)
    for file in sorted(set(files) - named):
        if PurePath(file).suffix.lower() in IMAGE_ENDINGS:
            source.set_aside.append(SetAside(0, file, f"no row of {TABLE} names it; add one with its captions"))
    source.images = clean_images((_make_row(line, row, read_image) for line, row in sample), source)
    return source


def _make_row(line: int, row: dict[str, str], read_image: ReadImage) -> Row:
    name, captions = row["image"], [row[column] for column in CAPTIONS]
    return Row(line, "", name, row["source"].strip(), row["split"].strip(), captions, partial(read_image, name))
