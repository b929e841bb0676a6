"""Recognise in which form a folder holds captioned images, and read it.

The first form of `NAMES` that has a file in the folder is read, from all its files together: so RSICD, UCM and NWPU may
lie side by side. Hidden files and those that systems leave behind are skipped. A damaged file beside others is skipped
and named. Damaged JSON beside JSON is refused, since it may be one more data set of the source.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from captioning.base.errors import UserError
from captioning.base.hashes import sha256
from captioning.base.quoting import escape, join_faults, shorten
from captioning.data.readers.captions_csv import TABLE
from captioning.data.readers.files import ImageFiles, list_files
from captioning.data.readers.folder import coco, karpathy, nwpu
from captioning.data.readers.folder.json_files import JsonFile, JsonForm, load
from captioning.data.readers.folder.tables import annotate, has_columns, read_table
from captioning.data.readers.names import Unusable, is_image
from captioning.data.readers.rows import Annotation, Source, check_size, open_annotations
from captioning.data.readers.shards.read import read_shards
from captioning.params.sections import Columns

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
JSON_FORMS: tuple[JsonForm, ...] = (karpathy.FORM, nwpu.FORM, coco.FORM)
SHARDS = "Parquet shards with images"
TABLES = (
    f"{TABLE} (RISC)",
    f"Hugging Face's image folder ({', '.join(METADATA)} with file_name and a caption)",
    "a table of images and captions (.csv, .jsonl, or .json with a list of rows)",
)
NAMES = (*TABLES[:2], *(form.name for form in JSON_FORMS), TABLES[2], SHARDS)
DOCUMENT = "data/raw/README.md"
MAX_LISTED = 6  # files and keys in a message
MAX_DESCRIBED = 3  # files, with their keys


class Form(NamedTuple):
    """A form of which a folder has files; `read` returns the annotations in one of them, None for shards."""

    name: str
    files: Sequence[str]
    read: Callable[[Path, str], list[Annotation]] | None


def read_folder(folder: Path, images: int | None = None, seed: int = 0, columns: Columns | None = None) -> Source:
    """Read all images, or a seeded sample; `columns` are those of shards.

    Raises `UserError` at once if the folder is not of a form that is read.
    """
    paths = list_files(folder)
    form, unread, damaged = _choose_form(folder, paths)
    root = folder.resolve().name
    if form.read is None:
        source = read_shards({file: folder / file for file in form.files}, root, images, seed, columns)
    else:
        refuse_columns(columns, f"{folder} holds {form.name}")
        annotations = [annotation for file in form.files for annotation in form.read(folder, file)]
        files = ImageFiles(paths, partial(_read_image, folder))
        source = open_annotations(annotations, files, images, seed)
        source.origin = {"sha256": {file: sha256(folder / file) for file in form.files}}
    source.origin = {"form": form.name, **source.origin}
    others = f"; not read, since this comes first: {_join(unread)}" if unread else ""
    faults = f"; passed over: {'; '.join(damaged[:MAX_DESCRIBED])}" if damaged else ""
    source.description = f"{folder}: {form.name}: {_join(form.files)}{others}{faults}"
    return source


def refuse_columns(columns: Columns | None, reason: str) -> None:
    """Raise `UserError` if columns are declared where there are no shards."""
    if columns is not None:
        raise UserError(f"data.columns: only Parquet shards have declared columns, and {reason}; set it to null")


def find_form(folder: Path) -> str:
    """Return the name of the form that is read in `folder`. Raises `UserError` if it has none."""
    return _choose_form(folder, list_files(folder))[0].name


def _choose_form(folder: Path, paths: Sequence[str]) -> tuple[Form, list[str], list[str]]:
    """Return the form that is read, the files of other forms, and a line for each damaged file."""
    forms, damaged = _find_forms(folder, paths)
    if not forms:
        raise UserError(_explain_unknown(folder, paths))
    faults = [fault for path, fault in damaged.items() if _with_ending([path], ".json")]
    if faults and forms[0].name not in (*TABLES, SHARDS):
        raise UserError(join_faults([f"{fault}, or move it elsewhere: it may be another data set" for fault in faults]))
    unread = {file: None for other in forms[1:] for file in other.files if file not in forms[0].files}
    return forms[0], list(unread), [fault for path, fault in damaged.items() if path not in forms[0].files]


def _find_forms(folder: Path, paths: Sequence[str]) -> tuple[list[Form], dict[str, str]]:
    """Return the forms of which `paths` has files, the one to read first, and what is wrong with damaged files."""
    names = {path: PurePosixPath(path).name.lower() for path in paths}
    metadata = [path for path, name in names.items() if name in METADATA]
    others = [path for path in metadata if _has_other_columns(folder / path)]
    by_form, damaged = _find_json(folder, paths)
    tables, damaged_tables = _find_tables(folder, paths)
    forms = [
        Form(TABLES[0], [path for path, name in names.items() if name == TABLE], _read_table),
        Form(TABLES[1], [path for path in metadata if path not in others], _read_table),
        Form(
            " and ".join(dict.fromkeys(form.name for form in by_form.values())),
            list(by_form),
            lambda folder, file: _read_json(folder, file, by_form[file]),
        ),
        Form(TABLES[2], tables, _read_table),
        Form(SHARDS, [path for path in _with_ending(paths, ".parquet") if path not in metadata], None),
        Form(TABLES[1], others, _read_table),  # alone, their line names the columns that they lack
    ]
    return [form for form in forms if form.files], damaged | damaged_tables


def _find_json(folder: Path, paths: Sequence[str]) -> tuple[dict[str, JsonForm], dict[str, str]]:
    """Return the form of each JSON file that has one, and what is wrong with damaged files."""
    forms, damaged = dict[str, JsonForm](), dict[str, str]()
    for path in _with_ending(paths, ".json"):
        try:
            content = load(folder / path)
        except UserError as error:
            damaged[path] = str(error)
            continue
        if form := next((form for form in JSON_FORMS if form.fits(content)), None):
            forms[path] = form
    return forms, damaged


def _find_tables(folder: Path, paths: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return the tables of images and captions, and what is wrong with damaged files."""
    tables, damaged = list[str](), dict[str, str]()
    for path in _with_ending(paths, ".csv", ".jsonl", ".json"):
        try:
            tables += [path] if has_columns(read_table(folder / path).columns) else []
        except UserError as error:
            if not _with_ending([path], ".json"):  # JSON may be anything else than a list of rows
                damaged[path] = str(error)
    return tables, damaged


def _with_ending(paths: Sequence[str], *endings: str) -> list[str]:
    return [path for path in paths if PurePosixPath(path).suffix.lower() in endings]


def _read_table(folder: Path, file: str) -> list[Annotation]:
    return annotate(read_table(folder / file), file, folder.resolve().name)


def _read_json(folder: Path, file: str, form: JsonForm) -> list[Annotation]:
    return form.read(load(folder / file), JsonFile(folder / file, file, folder.resolve().name))


def _has_other_columns(path: Path) -> bool:
    """Return whether this is a readable table without columns of images and captions."""
    try:
        return not has_columns(read_table(path).columns)
    except UserError:
        return False


def _read_image(folder: Path, path: str) -> bytes:
    try:
        check_size((folder / path).stat().st_size)
        return (folder / path).read_bytes()
    except OSError as error:
        raise Unusable(f"unreadable file: {type(error).__name__}") from None


def _explain_unknown(folder: Path, paths: Sequence[str]) -> str:
    """Return one line that names what the folder holds and what is read."""
    if not folder.is_dir():
        return f"{folder}: no such folder; put your images there, or correct data.path"
    endings = Counter("images" if is_image(path) else PurePosixPath(path).suffix or path for path in paths)
    counts = ", ".join(f"{number} {escape(ending)}" for ending, number in sorted(endings.items())) or "no file"
    described = [text for path in paths if (text := _describe(folder, path))]
    details = f": {'; '.join(described[:MAX_DESCRIBED])}" if described else ""
    archive = "; set data.source to `archive` for RISCM.zip" if "RISCM.zip" in paths else ""
    return (
        f"{folder}: no captions that are read; it holds {counts}{details}{archive}. {DOCUMENT} shows the forms that "
        f"are read: {'; '.join(NAMES)}"
    )


def _describe(folder: Path, path: str) -> str:
    """Return a file with its columns or keys, "" for other files."""
    if _with_ending([path], ".csv", ".jsonl"):
        try:
            keys = read_table(folder / path).columns
        except UserError as error:
            return escape(str(error).removeprefix(f"{folder}/"))
        return f"{escape(path)} has the columns {_join(keys)}"
    if _with_ending([path], ".json"):
        content = load(folder / path)
        kind = "is a list of" if isinstance(content, list) else "has the keys"
        items = content[0] if isinstance(content, list) and content else content
        keys = [_describe_key(*item) for item in items.items()] if isinstance(items, dict) else []
        return f"{escape(path)} {kind} {_join(keys) if keys else shorten(items)}"
    return ""


def _describe_key(key: str, value: Any) -> str:
    """Return a key, with the keys of its first entry if it has a list of maps: `images (id, filename)`."""
    is_list = isinstance(value, list) and value and isinstance(value[0], dict)
    return f"{key} ({', '.join(list(value[0])[:MAX_LISTED])})" if is_list else str(key)


def _join(names: Sequence[str]) -> str:
    """Return the first of `names`, and how many more they are."""
    more = [f"{len(names) - MAX_LISTED} more"] if len(names) > MAX_LISTED else []
    return ", ".join([*(re.sub(r"\s+", " ", escape(name)) for name in names[:MAX_LISTED]), *more])
