"""Files of pictures: which are meant, and what was said of each, as text, JSON or CSV.

1. A folder stands for the pictures in it and below, by their endings (`ENDINGS`), in the order of their paths; hidden
   ones are passed over, links to folders are not followed. A file that is named is taken whatever its ending.
2. Text holds captions only, a line each: the file, a tab, the caption. JSON and CSV hold a record for every file, with
   the reason where there is no caption. What a spreadsheet would run as a formula stands in CSV behind an apostrophe.
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from captioning.base.quoting import csv_cell, escape

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class PictureCaption:
    """A file with its caption, or why it has none (`error`); `notes` are what reading the picture had to decide."""

    file: str
    caption: str | None = None
    tokens: int | None = None
    ended: bool | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None


def gather(named: Sequence[Path]) -> list[Path]:
    """The files meant by `named`, each once, in the order they were named."""
    found = (file for path in named for file in (_inside(path) if path.is_dir() else [path]))
    return list(dict.fromkeys(found))


def _inside(folder: Path) -> Iterator[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent) / name for name in names if not name.startswith(".")]
    return iter(sorted(path for path in files if path.suffix.lower() in ENDINGS))


def shown(path: Path) -> str:
    """A path as it is printed: bytes that are no UTF-8 become a replacement character, control characters escapes."""
    return escape(os.fsencode(path).decode("utf-8", "replace"))


def as_text(captions: Sequence[PictureCaption]) -> str:
    return "".join(f"{one.file}\t{escape(one.caption or '')}\n" for one in captions if one.error is None)


def as_json(captions: Sequence[PictureCaption]) -> str:
    return json.dumps([asdict(one) for one in captions], ensure_ascii=False, indent=1) + "\n"


def as_csv(captions: Sequence[PictureCaption]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in fields(PictureCaption)], lineterminator="\n")
    writer.writeheader()
    for one in captions:
        record = asdict(one) | {"notes": "; ".join(one.notes)}
        writer.writerow({key: csv_cell(value) if isinstance(value, str) else value for key, value in record.items()})
    return buffer.getvalue()


FORMATS: dict[str, Callable[[Sequence[PictureCaption]], str]] = {"text": as_text, "json": as_json, "csv": as_csv}


def told_notes(captions: Sequence[PictureCaption]) -> list[str]:
    """A line for each kind of note: what was decided, and for which files; three are named."""
    files: dict[str, list[str]] = {}
    for one in captions:
        for note in one.notes:
            files.setdefault(note, []).append(one.file)
    more = {note: f" and {len(of) - 3} more" if len(of) > 3 else "" for note, of in files.items()}
    return [f"{note}: {', '.join(of[:3])}{more[note]}" for note, of in files.items()]
