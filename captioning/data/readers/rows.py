"""Check and clean the rows of a captioned data set, and set aside with a reason what cannot be used.

A source is iterated once, as a stream. Its list of what was set aside and its counts of rules are complete afterwards.

1. A malformed file is a `UserError` with all its faults at once. An unusable row, or a caption without words, is set
   aside, and the run continues.
2. An image keeps its usable captions, at least one. No caption is invented or repeated. An empty text is no caption.
3. A list that was written into one cell is as many captions as it holds (readers/caption_lists.py).
4. An image is named by its path, so the same name in two folders is two images (readers/files.py).
5. Images are not re-encoded: the published bytes stay, unless they are not an upright RGB JPEG or PNG of 8 bits.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Literal, TypeVar

from captioning.base.quoting import escape, shorten
from captioning.data.outputs import Origin
from captioning.data.pictures.read import read_image
from captioning.data.readers.caption_lists import is_list_as_text, split_lists
from captioning.data.readers.files import ImageFiles
from captioning.data.readers.names import (
    PUBLISHED,
    STATED_SPLITS,
    Unusable,
    check_path,
    folder_word,
    make_ids,
    read_split,
    splits_in_paths,
)
from captioning.images.decoded import UnreadableImage, encode_png
from captioning.images.table import CaptionedImage, clean_caption, is_nearly_empty

T = TypeVar("T")
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))  # RISC's columns
MAX_IMAGE_BYTES = 64 << 20  # encoded; RISC's have 9 to 41 KB
CONVERTED = "image converted to RGB PNG"
LIST_SPLIT = "list in one cell split"
NUMBER = re.compile(r"-?\d[\d.e+-]*")
MAX_WORDS = 200  # of a caption; RISC's longest has 51, and the longest caption sets the memory of a training step
MAX_CHARACTERS = 10 * MAX_WORDS  # some scripts have no spaces
MARK = re.compile(r"</?(?:image|[bes]os|pad|unk|mask|loc\d+|seg\d+|unused\d+|(?:start|end)_of_\w+|s)>")


@dataclass(frozen=True, order=True)
class SetAside:
    """A row, caption or image that was not used; `line` is that of the table, or a row of JSON or of a shard.

    Rows count from 1. An image that no row names has line 0.
    """

    line: int
    image: str
    reason: str
    kind: Literal["row", "caption", "image"] = field(default="row", compare=False)


@dataclass(frozen=True)
class Annotation:
    """What a file beside the images says about one of them, unchecked."""

    line: int
    name: str  # of the image file, with or without folders
    captions: Sequence[str]
    source: str
    split: str | None  # one of names.STATED_SPLITS; None: that of the folders
    file: str = ""  # the path of the file that says it, in the source
    words: Sequence[str] = ()  # folders where the image is likely to be


@dataclass(frozen=True)
class Row:
    """One image as its source describes it, unchecked."""

    line: int
    id: str
    name: str  # of the image file
    source: str
    split: str
    captions: Sequence[str]
    read: Callable[[], bytes]  # raises `Unusable`


@dataclass
class Source:
    """An iterable of captioned images, with a record of what was changed and set aside."""

    images: Iterator[CaptionedImage]
    total: int  # rows to read, including those that will be set aside
    rows: int  # of the whole source
    captions: int  # of the whole source, as published
    origin: Origin = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)
    fired_rules: Counter[str] = field(default_factory=Counter)
    kept_captions: int = 0
    description: str = ""  # what is read, for the user
    bands: tuple[int, ...] | None = None  # of TIFFs; None: as data/pictures/tiff.py chooses

    def __iter__(self) -> Iterator[CaptionedImage]:
        return self.images


def sample_rows(rows: Sequence[T], images: int | None, seed: int) -> Sequence[T]:
    """Return all rows, or a seeded sample of `images` of them, in their order."""
    if images is None or images >= len(rows):
        return rows
    return [rows[index] for index in sorted(random.Random(f"folder {seed}").sample(range(len(rows)), images))]


def group_rows(keys: Sequence[Hashable], captions: Sequence[Sequence[str]]) -> list[list[int]]:
    """Return the rows of each image, by their indices: all of one key.

    A row of several captions that repeats one of an earlier row is a copy: it stays alone, and is set aside later, as
    another image of the same id.
    """
    groups: dict[Hashable, list[int]] = {}
    known: dict[Hashable, set[str]] = {}
    copies: list[int] = []
    for index, (key, published) in enumerate(zip(keys, captions, strict=True)):
        texts, earlier = [text for text in split_lists(published) if text.strip()], known.setdefault(key, set())
        is_copy = len(texts) > 1 and not earlier.isdisjoint(texts)
        (copies if is_copy else groups.setdefault(key, [])).append(index)
        earlier.update(texts)
    return sorted([*groups.values(), *([index] for index in copies)])


def open_annotations(annotations: Sequence[Annotation], files: ImageFiles, images: int | None, seed: int) -> Source:
    """Return a source of all annotations or a seeded sample; images that none of them names are set aside, line 0."""
    words = {
        folder_word(word) for entry in annotations for word in entry.words if read_split(word) not in STATED_SPLITS
    }
    folders = {folder for annotation in annotations if (folder := _folder(annotation.file)) != "."}
    paths = [_locate(annotation, files, words, folders) for annotation in annotations]
    pairs = zip(annotations, paths, strict=True)
    ids = make_ids([path if isinstance(path, str) else annotation.name for annotation, path in pairs])
    sample, splits = sample_rows(range(len(annotations)), images, seed), _fill_splits(annotations, paths)
    captions = sum(count_captions(annotation.captions) for annotation in annotations)
    source = Source(iter(()), len(sample), len(annotations), captions)
    for path in sorted(files.paths - {path for path in paths if isinstance(path, str)}):
        reason = "no row names it; add one with its captions"
        source.set_aside.append(SetAside(0, PurePosixPath(path).name, reason, "image"))

    def make_row(index: int) -> Row:
        annotation, path = annotations[index], paths[index]
        source = escape(annotation.source)
        if isinstance(path, Unusable):
            return Row(annotation.line, "", annotation.name, source, splits[index], (), partial(_refuse, path))
        return Row(
            annotation.line,
            ids[index],
            annotation.name,
            annotation.source,
            splits[index],
            annotation.captions,
            partial(files.read, path),
        )

    source.images = clean_images(map(make_row, sample), source)
    return source


def _locate(annotation: Annotation, files: ImageFiles, words: set[str], folders: set[str]) -> str | Unusable:
    """Return the path of the annotation's image, or why there is none. `words`, `folders`: of all annotations."""
    try:
        path = files.find(check_path(annotation.name), _folder(annotation.file), annotation.words)
    except Unusable as reason:
        return reason
    if PurePosixPath(annotation.name).name == annotation.name and _is_foreign(path, annotation, words, folders):
        return Unusable(f"no such file, except one of another source or class ({path}); if that is it, name its folder")
    return path


def _is_foreign(path: str, annotation: Annotation, words: set[str], folders: set[str]) -> bool:
    """Return whether a folder of `path` is that of another source or class, or holds another file of annotations."""
    above = PurePosixPath(path).parents
    own_words, own_folder = {folder_word(word) for word in annotation.words}, PurePosixPath(annotation.file)
    others = (words | (PUBLISHED if own_words & PUBLISHED else set())) - own_words
    has_word = any(folder_word(folder.name) in others for folder in above)
    return has_word or any(str(folder) in folders and folder not in own_folder.parents for folder in above)


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)


def _fill_splits(annotations: Sequence[Annotation], paths: Sequence[str | Unusable]) -> list[str]:
    """Return the split of each annotation: its own, or that of its file and the folders in its image's name, or else
    that of the folders where its image is. `paths`: of the images."""
    stated = {
        index: f"{entry.file}/{_folder(entry.name)}" for index, entry in enumerate(annotations) if entry.split is None
    }
    folders = {index: _folder(path) for index in stated if isinstance(path := paths[index], str)}
    by_name, by_folder = splits_in_paths(list(stated.values())), splits_in_paths(list(folders.values()))
    return [
        entry.split or by_name.get(stated.get(index, "")) or by_folder.get(folders.get(index, "")) or ""
        for index, entry in enumerate(annotations)
    ]


def _refuse(reason: Unusable) -> bytes:
    raise reason


def count_captions(captions: Sequence[str]) -> int:
    """Count the captions as published, which are not empty."""
    return sum(bool(text.strip()) for text in split_lists(captions))


def clean_images(rows: Iterable[Row], source: Source) -> Iterator[CaptionedImage]:
    """Yield the usable rows, cleaned; record the others, and unusable captions, in `source`."""
    lines: dict[str, int] = {}
    for row in rows:
        try:
            if row.id in lines:
                raise Unusable(f"same image as line {lines[row.id]}; leave one of the rows")
            image = _clean_image(row.read(), source)
            captions = _clean_captions(row, source)
        except Unusable as reason:
            source.set_aside.append(SetAside(row.line, row.name, str(reason)))
            continue
        lines[row.id] = row.line
        source.kept_captions += len(captions)
        yield CaptionedImage(row.id, row.source, row.split, image, PurePosixPath(row.name).name, captions)


def check_size(size: int) -> None:
    """Raise `Unusable` if `size` bytes are too many for an encoded image."""
    if size > MAX_IMAGE_BYTES:
        raise Unusable(f"{size} bytes; an image has at most {MAX_IMAGE_BYTES}")


def _clean_image(encoded: bytes, source: Source) -> bytes:
    """Return an upright RGB JPEG or PNG of 8 bits as it is, and any other image as RGB PNG, and count its notes."""
    try:
        decoded = read_image(encoded, source.bands)
    except UnreadableImage as reason:
        raise Unusable(f"unreadable image: {reason}") from None
    if decoded.is_plain:
        return encoded
    source.fired_rules.update([CONVERTED, *(f"{CONVERTED}: {NUMBER.sub('…', note)}" for note in decoded.notes)])
    return encode_png(decoded.image)


def _clean_captions(row: Row, source: Source) -> tuple[str, ...]:
    """Return the usable captions, cleaned, and set the others aside, except for empty ones."""
    usable, captions = [], split_lists(row.captions)
    source.fired_rules.update([LIST_SPLIT] * (captions != list(row.captions)))
    for number, published in enumerate(captions, start=1):
        text, fired = clean_caption(published)
        if not published.strip():
            continue
        if fault := _caption_fault(published, text):
            source.set_aside.append(SetAside(row.line, row.name, f"caption_{number} {fault}", "caption"))
            continue
        source.fired_rules.update(fired)
        usable.append(text)
    if not usable:
        raise Unusable("no usable caption; every image needs one")
    return tuple(usable)


def _caption_fault(published: str, text: str) -> str | None:
    """Return why a model should not learn from a caption, whose cleaned form is `text`, or None."""
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # JSON can hold them, no other file
        return f"holds half a character: {shorten(text)}"
    if is_list_as_text(published):
        return f"is a list that cannot be split: {shorten(published)}; write one caption a cell"
    if is_nearly_empty(text):
        return f"is nearly empty: {shorten(text)}"
    if (words := len(text.split())) > MAX_WORDS:
        return f"has {words} words; at most {MAX_WORDS} are taken"
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text)} characters; at most {MAX_CHARACTERS} are taken"
    return f"holds {mark[0]}, a mark of the model's own" if (mark := MARK.search(text)) else None
