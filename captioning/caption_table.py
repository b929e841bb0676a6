"""RISC's table: `captions.csv`, one row an image with its source, its split and five captions."""

import csv
from collections.abc import Callable, Iterable

from captioning.rows import CAPTIONS, SPLITS, Row
from captioning.runlog import UserError

TABLE = "captions.csv"
COLUMNS = ("source", "split", "image", *CAPTIONS)
MOST_FAULTS = 20  # told at once
REMEDY = f"put RISC's {TABLE} there, as UTF-8, or mend data.path in params.yaml"

Lines = list[tuple[int, dict[str, str]]]


def read_table(name: str, text: Iterable[str]) -> Lines:
    """Rows with their line numbers; every fault of the table is in the one `UserError`, under `name`."""
    try:
        reader = csv.DictReader(text, strict=True)
        missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
        if missing:
            found = f"found {reader.fieldnames or []}"
            raise UserError(f"{name}:1: no column {', '.join(missing)}; the header must hold all of {COLUMNS}, {found}")
        rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{name}: {error}; {REMEDY}") from None
    faults = [f"{name}:{line}: {fault}" for line, row in rows if (fault := _fault(row))]
    if not rows:
        faults = [f"{name}:2: no rows; every image needs one"]
    if faults:
        more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
        raise UserError("\n  ".join(faults[:MOST_FAULTS] + more))
    return rows


def _fault(row: dict[str, str]) -> str | None:
    """What makes a row no row of this table."""
    if None in row or None in row.values():
        return f"{row.get('image')!r} has too {'many' if None in row else 'few'} fields; quote fields that hold commas"
    if row["split"].strip() not in SPLITS:
        return f"split {row['split']!r}; use train, val, test or leave it empty"
    if not row["source"].strip():
        return f"{row['image']!r} has no source; name the data set it is from"
    return None


def row_of(line: int, row: dict[str, str], read: Callable[[], bytes]) -> Row:
    """A row of the table with the way to its image's bytes."""
    captions = [row[column] for column in CAPTIONS]
    return Row(line, "", row["image"], row["source"].strip(), row["split"].strip(), captions, read)


def count_captions(rows: Lines) -> int:
    """Captions as published: fields that are not empty."""
    return sum(bool(row[column].strip()) for _, row in rows for column in CAPTIONS)
