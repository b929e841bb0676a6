"""Where captioned images come from: a folder in RISC's layout, or the drawn world.

A folder holds `captions.csv` (captioning/caption_table.py) and the images, under `resized/` or beside the file. A
zip archive of the same is captioning/archives.py's, Parquet files in the Hub's format captioning/shards.py's.
"""

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from captioning.caption_table import TABLE, Lines, count_captions, read_file, row_of, uncaptioned
from captioning.dataset import CaptionedImage, apportion, clean_caption
from captioning.overhead import draw, facts, sample_scene
from captioning.overhead_language import captions as drawn_captions
from captioning.pictures import encode
from captioning.rows import CAPTIONS, Row, Source, Unusable, captioned, check_size, drawn

SHARES = {"NWPU": 31_500 / 44_521, "RSICD": 10_921 / 44_521, "UCM": 2_100 / 44_521}  # of RISC's images
OWN_SPLITS = (("train", 0.8), ("val", 0.1), ("test", 0.1))


def folder(path: Path, images: int | None = None, seed: int = 0) -> Source:
    """The images of a folder in RISC's layout: all, or a seeded draw of `images` of its rows where it has more.

    Raises `UserError` at once where its table is missing or malformed.
    """
    held = read_file(path / TABLE)
    rows = drawn(held, images, seed)
    places = [place for place in (path / "resized", path) if place.is_dir()]
    files = sorted({file.name for place in places for file in place.iterdir() if file.is_file()})
    source = Source(iter(()), len(rows), len(held), count_captions(held), set_aside=uncaptioned(files, held))
    source.images = captioned(_rows(places, list(rows)), source)
    return source


def _rows(places: list[Path], rows: Lines) -> Iterator[Row]:
    for line, row in rows:
        yield row_of(line, row, partial(_read, row["image"], places))


def _read(name: str, places: list[Path]) -> bytes:
    for place in places:
        if (place / name).is_file():
            try:
                check_size((place / name).stat().st_size)
                return (place / name).read_bytes()
            except OSError as error:
                raise Unusable(f"unreadable file: {type(error).__name__}") from None
    raise Unusable("no such file")


def overhead(images: int, size: int, seed: int) -> Source:
    """`images` drawn scenes of `size` pixels in RISC's proportions of source, 80/10/10 in their own split; no I/O."""
    return Source(_drawn(images, size, seed), images, images, images * len(CAPTIONS))


def _drawn(images: int, size: int, seed: int) -> Iterator[CaptionedImage]:
    for source, number in apportion(images, SHARES).items():
        own = apportion(number, dict(OWN_SPLITS))
        splits = [split for split, count in own.items() for _ in range(count)]
        random.Random(f"own split {source} {seed}").shuffle(splits)
        for index, split in enumerate(splits):
            id_ = f"{source}_{index}"
            rng = random.Random(f"{id_} {seed}")
            scene = sample_scene(rng)
            image = encode(draw(scene, size, rng))
            texts = tuple(clean_caption(text)[0] for text in drawn_captions(scene, source, rng))
            shown = json.dumps(facts(scene), sort_keys=True)
            yield CaptionedImage(id_, source, split, image, f"{id_}.png", texts, shown)
