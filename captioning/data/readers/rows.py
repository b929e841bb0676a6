"""Rows of a captioned data set, whatever holds it: checked, cleaned, or set aside with a reason.

A source is iterated once and streams; what was set aside, and how often each rule fired, is complete when the
iteration is.

1. A file that is not what it should be is the user's to mend: `UserError`, every fault at once. A row that cannot be
   used, and a caption that says nothing, are set aside with their reason, and the run goes on.
2. An image keeps the captions that are left, one to five; none is invented or repeated.
3. Images are not re-encoded: the published bytes stay, unless they are no upright RGB JPEG or PNG of 8 bits.
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
CAPTIONS = tuple(f"caption_{place}" for place in range(1, 6))
SPLITS = ("", "train", "val", "test")
MAX_NAME_BYTES = 255  # bytes, of most file systems
MAX_IMAGE_BYTES = 64 << 20  # bytes, encoded; RISC's are 9 to 41 KB
KEPT_FORMATS = ("JPEG", "PNG")
CONVERTED = "image converted to RGB PNG"
NUMBER = re.compile(r"-?\d[\d.e+-]*")
MAX_WORDS = 200  # of a caption; RISC's longest has 51, and the longest one sets what a training step needs
MAX_CHARACTERS = 10 * MAX_WORDS  # characters: some scripts set no spaces
MARK = re.compile(r"</?(?:image|[bes]os|pad|unk|mask|loc\d+|seg\d+|unused\d+|(?:start|end)_of_\w+|s)>")


@dataclass(frozen=True, order=True)
class SetAside:
    """A row, caption or picture that was not taken; `line` is that of the table, or a shard's row, counted from 1."""

    line: int
    image: str
    reason: str


class Unusable(Exception):
    """Why a row cannot be used."""


@dataclass(frozen=True)
class Row:
    """One image with what its source says of it, before anything is checked."""

    line: int
    id: str  # "" where the image's name gives it
    name: str  # the image file's
    source: str
    split: str
    captions: Sequence[str]
    read: Callable[[], bytes]  # raises `Unusable`


@dataclass
class Source:
    """An iterable of captioned images with the record of what happened on the way."""

    images: Iterator[CaptionedImage]
    total: int  # images or rows to read, those that will be set aside among them
    rows: int  # of the source, before a draw
    captions: int  # of those rows, as published
    origin: dict[str, Any] = field(default_factory=dict)  # what the manifest says of it: commit, hashes
    set_aside: list[SetAside] = field(default_factory=list)
    fired_rules: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[CaptionedImage]:
        return self.images


def sample_rows(rows: Sequence[T], images: int | None, seed: int) -> Sequence[T]:
    """All rows, or a seeded draw of `images` of them, in their order."""
    if images is None or images >= len(rows):
        return rows
    return [rows[place] for place in sorted(random.Random(f"folder {seed}").sample(range(len(rows)), images))]


def clean_images(rows: Iterable[Row], source: Source) -> Iterator[CaptionedImage]:
    """The rows that can be used; the others, and captions that say nothing, go into `source.set_aside`."""
    seen: dict[str, int] = {}
    for row in rows:
        try:
            id_ = row.id or Path(check_name(row.name)).stem
            if id_ in seen:
                raise Unusable(f"same name as line {seen[id_]}, endings left out; rename one")
            image = _rgb(row.read(), source.fired_rules)
            captions = _captions(row, source)
        except Unusable as reason:
            source.set_aside.append(SetAside(row.line, row.name, str(reason)))
            continue
        seen[id_] = row.line
        yield CaptionedImage(id_, row.source, row.split, image, row.name, captions)


def check_name(name: str) -> str:
    """`name`, where it is a file's, no folder's, and fit for an id. Raises `Unusable`."""
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
    """Raises `Unusable` where an encoded image of `size` bytes is none."""
    if size > MAX_IMAGE_BYTES:
        raise Unusable(f"{size} bytes; an image has at most {MAX_IMAGE_BYTES}")


def _rgb(encoded: bytes, rules: Counter[str]) -> bytes:
    """The bytes of an upright RGB JPEG or PNG of 8 bits, else an RGB PNG of what images/pictures.py reads."""
    try:
        picture = pictures.read_image(encoded)
    except pictures.UnreadableImage as reason:
        raise Unusable(f"unreadable image: {reason}") from None
    with Image.open(io.BytesIO(encoded), formats=pictures.FORMATS) as image:
        plain = image.mode == "RGB" and image.format in KEPT_FORMATS and "transparency" not in image.info
    if plain and not picture.notes:
        return encoded
    rules.update([CONVERTED, *(f"{CONVERTED}: {NUMBER.sub('…', note)}" for note in picture.notes)])
    return pictures.encode_png(picture.image)


def _captions(row: Row, source: Source) -> tuple[str, ...]:
    """The cleaned captions that say something; the others are set aside one by one."""
    kept = []
    for column, published in zip(CAPTIONS, row.captions, strict=True):
        text, fired = clean_caption(published)
        if fault := _caption_fault(text):
            source.set_aside.append(SetAside(row.line, row.name, f"{column} {fault}"))
            continue
        source.fired_rules.update(fired)
        kept.append(text)
    if not kept:
        raise Unusable("no usable caption; every image needs one")
    return tuple(kept)


def _caption_fault(text: str) -> str | None:
    """What makes a cleaned caption none to learn from."""
    if is_nearly_empty(text):
        return f"is nearly empty: {shorten(text)}"
    if (words := len(text.split())) > MAX_WORDS:
        return f"has {words} words; at most {MAX_WORDS} are taken"
    if len(text) > MAX_CHARACTERS:
        return f"has {len(text)} characters; at most {MAX_CHARACTERS} are taken"
    if mark := MARK.search(text):
        return f"holds {mark[0]}, a mark of the model's own"
    return None
