"""A folder in RISC's layout.

It holds `captions.csv` (data/readers/captions_csv.py) and the images, under `resized/` or beside the file. A
zip archive of the same is data/readers/archive.py's, Parquet files in the Hub's format data/readers/shards.py's.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from captioning.data.readers.captions_csv import TABLE, Lines, count_captions, find_uncaptioned, make_row, read_file
from captioning.data.readers.rows import Row, Source, Unusable, check_size, clean_images, sample_rows


def read_folder(path: Path, images: int | None = None, seed: int = 0) -> Source:
    """The images of a folder in RISC's layout: all, or a seeded draw of `images` of its rows where it has more.

    Raises `UserError` at once where its table is missing or malformed.
    """
    held = read_file(path / TABLE)
    rows = sample_rows(held, images, seed)
    places = [place for place in (path / "resized", path) if place.is_dir()]
    files = sorted({file.name for place in places for file in place.iterdir() if file.is_file()})
    source = Source(iter(()), len(rows), len(held), count_captions(held), set_aside=find_uncaptioned(files, held))
    source.images = clean_images(_rows(places, list(rows)), source)
    return source


def _rows(places: list[Path], rows: Lines) -> Iterator[Row]:
    for line, row in rows:
        yield make_row(line, row, partial(_read, row["image"], places))


def _read(name: str, places: list[Path]) -> bytes:
    for place in places:
        if (place / name).is_file():
            try:
                check_size((place / name).stat().st_size)
                return (place / name).read_bytes()
            except OSError as error:
                raise Unusable(f"unreadable file: {type(error).__name__}") from None
    raise Unusable("no such file")
