"""Read the names in other people's data sets: of splits, sources, images, columns, and of files that systems leave.

The words for splits are those of `datasets`, in any case, and `restval`, with which Karpathy's JSON of COCO marks more
training images.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

SPLIT_WORDS = {
    "train": ("train", "training", "restval"),
    "val": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLIT_BY_WORD = {word: split for split, words in SPLIT_WORDS.items() for word in words}  # to RISC's
STATED_SPLITS = ("", *SPLIT_WORDS)
SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"}
RISC_NAME = re.compile(r"([A-Z][A-Z0-9]+)_\d+\.\w+")
PLAIN_WORDS = {"annotation", "annotations", "caption", "captions", "data", "dataset", "json", "metadata"} | {
    *SPLIT_BY_WORD
}
PUBLISHED = {"coco", "nwpu", "rsicd", "sydney", "ucm"}  # data sets, of which people have several side by side
IMAGE_WORDS = {"image", "images", "img", "imgs", "picture", "pictures"}  # of folders: UCM_images
FOLDER_WORDS = PLAIN_WORDS | IMAGE_WORDS
NAME_COLUMNS = ("file_name", "filename", "image")
CAPTION_COLUMNS = ("captions", "caption", "text", "texts", "sentences", "description")
NUMBERED = re.compile(r"caption_?(\d+)")
FURTHER = re.compile(  # columns of captions under names that are not read: caption_b, caption.1 of pandas, text_2
    rf"(?:{'|'.join(CAPTION_COLUMNS)})(?:[_ .-]?\d+|[_ .-](?:[a-z]|one|two|three|four|five))", re.IGNORECASE
)
OUTSIDE = re.compile(r"[/\\]|[A-Za-z]:[/\\]|[\w+.-]+:/")  # /a.jpg, \\server\a.jpg, C:\a.jpg, https://x.org/a.jpg
JOINERS = "\u200c\u200d"
MAX_NAME_BYTES = 255  # of most file systems
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".gif", ".bmp")


class Unusable(Exception):
    """Why a row cannot be used."""


def read_split(text: str) -> str:
    """Return one of `STATED_SPLITS`, or `text` if it names none."""
    return SPLIT_BY_WORD.get(text.strip().lower(), text.strip())


def split_in_path(path: str) -> str:
    """Return the last split that a word of `path` names, or ""."""
    splits = [SPLIT_BY_WORD[word] for word in re.split(r"[^a-z]+", path.lower()) if word in SPLIT_BY_WORD]
    return splits[-1] if splits else ""


def splits_in_paths(paths: Sequence[str]) -> dict[str, str]:
    """Return the split that each path names; "" for all if they name one: a split of all images means nothing."""
    splits = {path: split_in_path(path) for path in paths}
    return splits if len(set(splits.values())) > 1 else dict.fromkeys(paths, "")


def name_source(path: str, root: str) -> str:
    """Name the data set whose annotations are in `path`: by its first folder, its file's name, or `root`.

    Words that many data sets have are left out: `UCM_captions/dataset.json` is UCM.
    """
    names = (_without_words(name, PLAIN_WORDS) for name in PurePosixPath(path).with_suffix("").parts)
    return next(filter(None, names), root)


def _without_words(name: str, plain: Collection[str]) -> str:
    words = re.split(r"[\W_]+", name)
    kept = [word for word in words if word.lower().rstrip("0123456789") not in {*plain, ""}]
    return name if len(kept) == len(words) else "_".join(kept)


def folder_word(name: str) -> str:
    """Return what a folder's name shares with that of its source, class or split: `ucm` of `UCM_images`.

    A name of plain words alone stays, in small letters: `train2014`.
    """
    return (_without_words(name, FOLDER_WORDS) or name).lower()


def source_of_image(name: str, default: str) -> str:
    """Return the prefix of an image's name of RISC's form `<SOURCE>_<index>.jpg`, otherwise `default`."""
    match = RISC_NAME.fullmatch(PurePosixPath(name).name)
    return match[1] if match else default


def caption_columns(header: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return the columns that hold captions, numbered ones or the first of `CAPTION_COLUMNS`, and the missing ones.

    One is missing if a column looks like one more of captions, but has no name that is read.
    """
    numbers = {int(match[1]): column for column in header if (match := NUMBERED.fullmatch(column))}
    missing = [f"caption_{number}" for number in range(1, max(numbers, default=1)) if number not in numbers]
    if any(FURTHER.fullmatch(column) and not NUMBERED.fullmatch(column) for column in header):
        missing.append(f"caption_{max(numbers, default=0) + 1}")
    numbered = tuple(numbers[number] for number in sorted(numbers))
    columns = numbered or tuple(column for column in CAPTION_COLUMNS if column in header)[:1]
    return columns, missing if columns else ["caption_1"]


def is_system_file(path: str) -> bool:
    """Return whether a file is hidden, or was left behind by a system: `._a.jpg`, `.DS_Store`, `__MACOSX/`.

    In a path from the top of another machine, such as `/home/me/.cache/a.jpg`, a hidden folder means nothing.
    """
    parts = PurePosixPath(path).parts
    visible = parts[-1:] if path.startswith("/") else parts
    is_hidden = any(part.startswith(".") and part != ".." for part in visible)
    return is_hidden or any(part.lower() in SYSTEM_NAMES for part in parts)


def is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_ENDINGS


def check_path(name: str) -> str:
    """Return `name`. Raises `Unusable` if it is not a plain relative path."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not name.strip() or not parts:
        raise Unusable("its name is no file name")
    if ".." in parts or "://" in name or OUTSIDE.match(name):
        raise Unusable("its name is absolute or an address or holds ..; write it as a path within the data set")
    if not all(is_plain(character) for character in name):
        raise Unusable("its name holds a control character; rename the file")
    if max(len(part.encode(errors="surrogatepass")) for part in name.split("/")) > MAX_NAME_BYTES:
        raise Unusable(f"its name is longer than {MAX_NAME_BYTES} bytes")
    return name


def is_plain(character: str) -> bool:
    """Return whether a character may be in a name: a space of any width and a joiner of emoji may, a control not."""
    return character.isprintable() or unicodedata.category(character) == "Zs" or character in JOINERS


def make_ids(paths: Sequence[str]) -> list[str]:
    """Return an id for each image: its name without ending, or with its folders if two have that name."""
    distinct = [PurePosixPath(path) for path in dict.fromkeys(paths)]
    stems = Counter(path.stem for path in distinct)
    longer = Counter(str(path.with_suffix("")) for path in distinct if path.name)
    return [_make_id(PurePosixPath(path), stems, longer) for path in paths]


def _make_id(path: PurePosixPath, stems: Counter[str], longer: Counter[str]) -> str:
    if stems[path.stem] == 1:
        return path.stem
    without_ending = str(path.with_suffix("")) if path.name else ""
    return without_ending if longer[without_ending] == 1 else str(path)
