"""Read a folder in RISC's layout: `captions.csv` (readers/captions_csv.py), and images in `resized/` or beside it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from captioning.data.readers.captions_csv import TABLE, Lines, count_captions, find_uncaptioned, make_row, read_file
from captioning.data.readers.rows import Row, Source, Unusable, check_size, clean_images, sample_rows


def read_folder(path: Path, images: int | None = None, seed: int = 0) -> Source:
    """Read all rows, or a seeded sample of `images` rows. Raises `UserError` at once if the table is unusable."""
    table = read_file(path / TABLE)
    sample = sample_rows(table, images, seed)
    folders = [folder for folder in (path / "resized", path) if folder.is_dir()]
    files = sorted({file.name for folder in folders for file in folder.iterdir() if file.is_file()})
    source = Source(iter(()), len(sample), len(table), count_captions(table))
    source.set_aside = find_uncaptioned(files, table)
    source.images = clean_images(_rows(folders, list(sample)), source)
    return source


def _rows(folders: list[Path], table: Lines) -> Iterator[Row]:
    for line, row in table:
        yield make_row(line, row, partial(_read_image, row["image"], folders))


def _read_image(name: str, folders: list[Path]) -> bytes:
    for folder in folders:
        if (folder / name).is_file():
            try:
                check_size((folder / name).stat().st_size)
                return (folder / name).read_bytes()
            except OSError as error:
                raise Unusable(f"unreadable file: {type(error).__name__}") from None
    raise Unusable("no such file")
