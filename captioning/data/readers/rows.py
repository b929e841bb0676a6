"""Check and clean the rows of a captioned data set, and set aside with a reason what cannot be used.

A source is iterated once, as a stream. Its list of what was set aside and its counts of rules are complete afterwards.

1. A malformed file is a `UserError` with all its faults at once. An unusable row, or a caption without words, is set
   aside, and the run continues.
2. An image keeps its usable captions, one to five. No caption is invented or repeated.
3. Images are not re-encoded: the published bytes stay, unless they are not an upright RGB JPEG or PNG of 8 bits.
"""

import io
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from captioning.base.quoting import shorten
from captioning.images import pictures
from captioning.images.table import CaptionedImage, clean_caption, is_nearly_empty

T = TypeVar("T")
CAPTIONS = tuple(f"caption_{number}" for number in range(1, 6))
SPLITS = ("", "train", "val", "test")
MAX_NAME_BYTES = 255  # of most file systems
MAX_IMAGE_BYTES = 64 << 20  # encoded; RISC's have 9 to 41 KB
CONVERTED = "image converted to RGB PNG"
NUMBER = re.compile(r"-?\d[\d.e+-]*")
MAX_WORDS = 200  # of a caption; RISC's longest has 51, and the longest caption sets the memory of a training step
MAX_CHARACTERS = 10 * MAX_WORDS  # some scripts have no spaces
MARK = re.compile(r"</?(?:image|[bes]os|pad|unk|mask|loc\d+|seg\d+|unused\d+|(?:start|end)_of_\w+|s)>")


@dataclass(frozen=True, order=True)
class SetAside:
    """A row, caption or image that was not used; `line` is that of the table, or a shard's row, counted from 1."""

    line: int
    image: str
    reason: str


class Unusable(Exception):
    """Why a row cannot be used."""


@dataclass(frozen=True)
class Row:
    """One image as its source describes it, unchecked."""

    line: int
    id: str  # "": derived from the image's name
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
    origin: dict[str, Any] = field(default_factory=dict)  # for the manifest: commit, hashes
    set_aside: list[SetAside] = field(default_factory=list)
    fired_rules: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[CaptionedImage]:
        return self.images


def sample_rows(rows: Sequence[T], images: int | None, seed: int) -> Sequence[T]:
    """Return all rows, or a seeded sample of `images` of them, in their order."""
    if images is None or images >= len(rows):
        return rows
    return [rows[index] for index in sorted(random.Random(f"folder {seed}").sample(range(len(rows)), images))]


def clean_images(rows: Iterable[Row], source: Source) -> Iterator[CaptionedImage]:
    """Yield the usable rows, cleaned; record the others, and unusable captions, in `source.set_aside`."""
    lines: dict[str, int] = {}
    for row in rows:
        try:
            id_ = row.id or Path(check_name(row.name)).stem
            if id_ in lines:
                raise Unusable(f"same name as line {lines[id_]}, endings left out; rename one")
            image = _clean_image(row.read(), source.fired_rules)
            captions = _clean_captions(row, source)
        except Unusable as reason:
            source.set_aside.append(SetAside(row.line, row.name, str(reason)))
            continue
        lines[id_] = row.line
        yield CaptionedImage(id_, row.source, row.split, image, row.name, captions)


def check_name(name: str) -> str:
    """Return `name`. Raises `Unusable` if it is not a plain file name that can be an id."""
    if not name.strip() or Path(name).name != name or name in (".", ".."):
        raise Unusable("its name is no plain file name")
    if any(character.isspace() for character in name):
        raise Unusable("its name holds a space; ids are kept one a line")
    if not name.isprintable():
        raise Unusable("its name holds a control character")
    if len(name.encode(errors="surrogatepass")) > MAX_NAME_BYTES:
        raise Unusable(f"its name is longer than {MAX_NAME_BYTES} bytes")
    return name


def check_size(size: int) -> None:
    """Raise `Unusable` if `size` bytes are too many for an encoded image."""
    if size > MAX_IMAGE_BYTES:
        raise Unusable(f"{size} bytes; an image has at most {MAX_IMAGE_BYTES}")


def _clean_image(encoded: bytes, rules: Counter[str]) -> bytes:
    """Return an upright RGB JPEG or PNG of 8 bits as it is, and any other image as RGB PNG; count that in `rules`."""
    try:
        decoded = pictures.read_image(encoded)
    except pictures.UnreadableImage as reason:
        raise Unusable(f"unreadable image: {reason}") from None
    with Image.open(io.BytesIO(encoded), formats=pictures.FORMATS) as image:
        is_plain = image.mode == "RGB" and image.format in ("JPEG", "PNG") and "transparency" not in image.info
    if is_plain and not decoded.notes:
        return encoded
    rules.update([CONVERTED, *(f"{CONVERTED}: {NUMBER.sub('…', note)}" for note in decoded.notes)])
    return pictures.encode_png(decoded.image)


def _clean_captions(row: Row, source: Source) -> tuple[str, ...]:
    """Return the usable captions, cleaned, and set the others aside."""
    usable = []
    for column, published in zip(CAPTIONS, row.captions, strict=True):
        text, fired = clean_caption(published)
        if fault := _caption_fault(text):
            source.set_aside.append(SetAside(row.line, row.name, f"{column} {fault}"))
            continue
        source.fired_rules.update(fired)
        usable.append(text)
    if not usable:
        raise Unusable("no usable caption; every image needs one")
    return tuple(usable)


def _caption_fault(text: str) -> str | None:
    """Return why a model should not learn from a cleaned caption, or None."""
    if is_nearly_empty(text):
        return f"is nearly empty: {shorten(text)}"
    if (words := len(text.split())) > MAX_WORDS:
        return f"has {words} words; at most {MAX_WORDS} are taken"
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text)} characters; at most {MAX_CHARACTERS} are taken"
    return f"holds {mark[0]}, a mark of the model's own" if (mark := MARK.search(text)) else None
