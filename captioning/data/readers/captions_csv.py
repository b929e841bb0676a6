"""Parse a table of captions in CSV: comma-separated UTF-8, with or without a byte-order mark, with any line ends.

A table that cannot be parsed is refused; readers/folder/tables.py reads its columns.
"""

import csv
import io
from collections.abc import Iterator
from typing import Any, NamedTuple

from captioning.base.errors import UserError
from captioning.base.quoting import escape
from captioning.data.readers.rows import CAPTIONS

TABLE = "captions.csv"
COLUMNS = ("source", "split", "image", *CAPTIONS)  # RISC's
MAX_TABLE_BYTES = 256 << 20  # RISC's has 20 MB
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # of other programs
SIGNATURES = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK\x03\x04": "an Excel workbook or a zip archive"}


class Table(NamedTuple):
    """A table as its file holds it: `rows` by column, each with its line, counted from 1.

    A row of CSV whose number of fields is wrong has the key None, with the value "many" or "few".
    """

    name: str  # of the file, for messages
    columns: list[str]
    rows: list[tuple[int, dict[Any, Any]]]


def parse_csv(name: str, content: bytes) -> Table:
    """Return the table. Raises `UserError` under `name` if it is not CSV."""
    header: list[str] = []
    rows = list(_parse_rows(name, csv.reader(io.StringIO(_decode(name, content), newline=""), strict=True), header))
    return Table(name, header, rows)


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


def _parse_rows(name: str, reader: Any, header: list[str]) -> Iterator[tuple[int, dict[Any, Any]]]:
    """Fill `header`; yield line number and fields by column of each row that is not empty."""
    first_line = 1  # of the row that is read
    try:
        header += next(reader, [])
        if fault := _header_fault(header):
            raise UserError(f"{name}:1: {fault}")
        first_line = reader.line_num + 1
        for fields in reader:
            if fields:
                row: dict = dict(zip(header, fields, strict=False))
                wrong = "many" if len(fields) > len(header) else "few" if len(fields) < len(header) else ""
                yield reader.line_num, row | ({None: wrong} if wrong else {})
            first_line = reader.line_num + 1
    except csv.Error as error:
        fault = f"the row that begins here cannot be read ({error}); look for a quote that is not closed"
        raise UserError(f"{name}:{first_line}: {fault}") from None


def _header_fault(header: list[str]) -> str | None:
    if repeated := sorted({escape(column) for column in header if column and header.count(column) > 1}):
        return f"column {', '.join(repeated[:5])} occurs twice; leave one"
    for mark, separators in SEPARATORS.items():
        if len(header) == 1 and mark in header[0]:
            return f"{separators} separate its columns; save it with commas"
    return None
