"""Where captioned images come from: a folder in RISC's layout, or the drawn world.

A folder holds `captions.csv` (columns `COLUMNS`) and the images, under `resized/` or beside the file. Each source is
iterated once and streams; what was set aside, and how often each rule fired, is complete when the iteration is.

1. A file that is not what it should be is the user's to mend: `UserError`, every fault at once. A row that cannot be
   used, and a caption that says nothing, are set aside with their reason, and the run goes on.
2. An image keeps the captions that are left, one to five; none is invented or repeated.
3. Images are not re-encoded: the published bytes stay, unless they are no RGB JPEG or PNG.
"""

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from captioning.dataset import CaptionedImage, apportion, clean_caption, is_nearly_empty
from captioning.overhead import draw, facts, sample_scene
from captioning.overhead_language import captions as drawn_captions
from captioning.runlog import UserError

TABLE = "captions.csv"
CAPTIONS = tuple(f"caption_{place}" for place in range(1, 6))
COLUMNS = ("source", "split", "image", *CAPTIONS)
SPLITS = ("", "train", "val", "test")
LONGEST_NAME = 255  # bytes, of most file systems
KEPT_FORMATS = ("JPEG", "PNG")
CONVERTED = "image converted to RGB PNG"
SHARES = {"NWPU": 31_500 / 44_521, "RSICD": 10_921 / 44_521, "UCM": 2_100 / 44_521}  # of RISC's images
OWN_SPLITS = (("train", 0.8), ("val", 0.1), ("test", 0.1))


@dataclass(frozen=True, order=True)
class SetAside:
    """A row or caption that was not taken; `line` is that of the table, counted from 1."""

    line: int
    image: str
    reason: str


@dataclass
class Source:
    """An iterable of captioned images with the record of what happened on the way."""

    images: Iterator[CaptionedImage]
    total: int  # images or rows to read, those that will be set aside among them
    rows: int  # of the source, before a draw
    set_aside: list[SetAside] = field(default_factory=list)
    rules: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[CaptionedImage]:
        return self.images


def folder(path: Path, images: int | None = None, seed: int = 0) -> Source:
    """The images of a folder in RISC's layout: all, or a seeded draw of `images` of its rows where it has more.

    Raises `UserError` at once where its table is missing or malformed.
    """
    rows = _read_table(path / TABLE)
    held = len(rows)
    if images is not None and images < len(rows):
        rows = sorted(random.Random(f"folder {seed}").sample(rows, images), key=lambda row: row[0])
    source = Source(iter(()), len(rows), held)
    source.images = _from_rows(path, rows, source)
    return source


def _read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows with their line numbers; every fault of the table is in the one `UserError`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                found = f"found {reader.fieldnames or []}"
                raise UserError(
                    f"{path}:1: no column {', '.join(missing)}; the header must hold all of {COLUMNS}, {found}"
                )
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        remedy = f"put RISC's {TABLE} there, as UTF-8, or mend data.path in params.yaml"
        raise UserError(f"{path}: {error}; {remedy}") from None
    faults = [f"{path}:{line}: {fault}" for line, row in rows if (fault := _fault(row))]
    if not rows:
        faults = [f"{path}:2: no rows; every image needs one"]
    if faults:
        raise UserError("\n  ".join(faults))
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


def _from_rows(path: Path, rows: list[tuple[int, dict[str, str]]], source: Source) -> Iterator[CaptionedImage]:
    places = [place for place in (path / "resized", path) if place.is_dir()]
    seen: dict[str, int] = {}
    for line, row in rows:
        name = row["image"]
        try:
            if Path(name).stem in seen:
                raise _Unusable(f"same name as line {seen[Path(name).stem]}")
            image = _image(_locate(name, places), source.rules)
            captions = _captions(row, line, source)
        except _Unusable as reason:
            source.set_aside.append(SetAside(line, name, str(reason)))
            continue
        seen[Path(name).stem] = line
        yield CaptionedImage(Path(name).stem, row["source"].strip(), row["split"].strip(), image, name, captions)


class _Unusable(Exception):
    """Why a row cannot be used."""


def _locate(name: str, places: list[Path]) -> Path:
    if not name.strip() or Path(name).name != name or name in (".", ".."):
        raise _Unusable("its name is no plain file name")
    if any(character.isspace() for character in name):
        raise _Unusable("its name holds a space; ids are kept one a line")
    if len(name.encode()) > LONGEST_NAME:
        raise _Unusable(f"its name is longer than {LONGEST_NAME} bytes")
    for place in places:
        if (place / name).is_file():
            return place / name
    raise _Unusable("no such file")


def _image(path: Path, rules: Counter[str]) -> bytes:
    """The file's bytes where they are an RGB JPEG or PNG, else an RGB PNG of them."""
    encoded = path.read_bytes()
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            if image.mode == "RGB" and image.format in KEPT_FORMATS:
                return encoded
            rules[CONVERTED] += 1
            return _png(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _Unusable(f"unreadable image: {type(error).__name__}") from None


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _captions(row: dict[str, str], line: int, source: Source) -> tuple[str, ...]:
    """The cleaned captions that say something; the others are set aside one by one."""
    kept = []
    for column in CAPTIONS:
        text, fired = clean_caption(row[column])
        if is_nearly_empty(text):
            source.set_aside.append(SetAside(line, row["image"], f"{column} is nearly empty: {text!r}"))
            continue
        source.rules.update(fired)
        kept.append(text)
    if not kept:
        raise _Unusable("no usable caption; every image needs one")
    return tuple(kept)


def overhead(images: int, size: int, seed: int) -> Source:
    """`images` drawn scenes of `size` pixels in RISC's proportions of source, 80/10/10 in their own split; no I/O."""
    return Source(_drawn(images, size, seed), images, images)


def _drawn(images: int, size: int, seed: int) -> Iterator[CaptionedImage]:
    for source, number in apportion(images, SHARES).items():
        own = apportion(number, dict(OWN_SPLITS))
        splits = [split for split, count in own.items() for _ in range(count)]
        random.Random(f"own split {source} {seed}").shuffle(splits)
        for index, split in enumerate(splits):
            id_ = f"{source}_{index}"
            rng = random.Random(f"{id_} {seed}")
            scene = sample_scene(rng)
            image = _png(draw(scene, size, rng))
            texts = tuple(clean_caption(text)[0] for text in drawn_captions(scene, source, rng))
            shown = json.dumps(facts(scene), sort_keys=True)
            yield CaptionedImage(id_, source, split, image, f"{id_}.png", texts, shown)
