"""Read a folder in RISC's layout: `captions.csv` (readers/captions_csv.py), and images in `resized/` or beside it."""

from functools import partial
from pathlib import Path

from captioning.data.readers.captions_csv import TABLE, open_table, read_file
from captioning.data.readers.rows import Source, Unusable, check_size


def read_folder(path: Path, images: int | None = None, seed: int = 0) -> Source:
    """Read all rows, or a seeded sample of `images` rows. Raises `UserError` at once if the table is unusable."""
    table = read_file(path / TABLE)
    folders = [folder for folder in (path / "resized", path) if folder.is_dir()]
    files = [file.name for folder in folders for file in folder.iterdir() if file.is_file()]
    return open_table(table, files, images, seed, partial(_read_image, folders))


def _read_image(folders: list[Path], name: str) -> bytes:
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        raise Unusable("no such file")
    try:
        check_size(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise Unusable(f"unreadable file: {type(error).__name__}") from None
