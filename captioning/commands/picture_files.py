"""Find image files, and format their captions as text, JSON or CSV."""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from captioning.base.errors import UserError
from captioning.base.quoting import csv_cell, escape

NUMBER = re.compile(r"-?\d[\d.e+-]*")
ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class FileCaption:
    """A file with its caption, or the reason why it has none, and notes about how the image was read."""

    file: str
    caption: str | None = None
    tokens: int | None = None
    ended: bool | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None


def find_image_files(paths: Sequence[Path]) -> list[Path]:
    """List the files at `paths` and the images in folders and below, in order of path, each file once.

    A file needs no image's ending if it is named itself. Hidden files and links to folders are left out.
    """
    files = (file for path in paths for file in (_walk(path) if path.is_dir() else [path]))
    return list(dict.fromkeys(files))


def _walk(folder: Path) -> Iterator[Path]:
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files += [Path(parent) / name for name in names if not name.startswith(".")]
    return iter(sorted(path for path in files if path.suffix.lower() in ENDINGS))


def check_output(path: Path | None, images: Sequence[Path]) -> None:
    """Raise `UserError` before the work begins if `path` cannot be written, or is one of the images."""
    if path is None:
        return
    require_writable("--out", path)
    if path.exists() and any(image.exists() and path.samefile(image) for image in images):
        raise UserError(f"--out {escape_path(path)}: this is one of the images; choose another")


def require_writable(option: str, path: Path, kind: str = "file") -> None:
    """Raise `UserError` if `path`, the value of a command's `option`, cannot be written as a `file` or `new folder`."""
    is_taken = path.is_dir() if kind == "file" else os.path.lexists(path)
    if is_taken or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        fault = f"not a {kind} in an existing, writable folder"
        raise UserError(f"{option} {escape_path(path)}: {fault}; choose another")


def escape_path(path: Path) -> str:
    """Return `path` as text: bytes that are not UTF-8 become replacement characters, control characters escapes."""
    return escape(os.fsencode(path).decode("utf-8", "replace"))


def format_text(captions: Sequence[FileCaption]) -> str:
    """Format the captions as lines of file, tab, caption; files without a caption are left out."""
    return "".join(f"{line.file}\t{escape(line.caption or '')}\n" for line in captions if line.error is None)


def format_json(captions: Sequence[FileCaption]) -> str:
    return json.dumps([asdict(record) for record in captions], ensure_ascii=False, indent=1) + "\n"


def format_csv(captions: Sequence[FileCaption]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [field.name for field in fields(FileCaption)], lineterminator="\n")
    writer.writeheader()
    for caption in captions:
        record = asdict(caption) | {"notes": "; ".join(caption.notes)}
        writer.writerow({key: csv_cell(value) if isinstance(value, str) else value for key, value in record.items()})
    return buffer.getvalue()


CAPTION_FORMATS: dict[str, Callable[[Sequence[FileCaption]], str]] = {
    "text": format_text,
    "json": format_json,
    "csv": format_csv,
}


def summarise_notes(captions: Sequence[FileCaption]) -> list[str]:
    """Return a line for each kind of note, with the first three files that it is about.

    Notes that differ in their numbers only are of one kind, with "…" for the numbers.
    """
    kinds: dict[str, dict[str, list[str]]] = {}
    for caption in captions:
        for note in caption.notes:
            kinds.setdefault(NUMBER.sub("…", note), {}).setdefault(note, []).append(caption.file)
    return [_summarise_kind(kind, notes) for kind, notes in kinds.items()]


def _summarise_kind(kind: str, notes: dict[str, list[str]]) -> str:
    files = [file for names in notes.values() for file in names]
    remainder = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"{kind if len(notes) > 1 else next(iter(notes))}: {', '.join(files[:3])}{remainder}"
