"""What a stage writes in bytes, told before it begins where a disk cannot hold it. Estimates err on the large side;
`tests/test_disk.py` holds each to what was really written.

1. DVC copies an output into its cache, so it counts twice, unless `cache.type` says otherwise: with hard or symbolic
   links, or with `reflink` alone, the copy takes nothing. By default DVC tries reflinks first; whether the file system
   has them is not asked.
2. What stands in the same place already is written over, or goes on from there: it counts as room.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from captioning.runlog import UserError
from captioning.sizes import length, told

DVC = Path(".dvc")
LINKS = ("hardlink", "symlink")
PIXEL = 0.8  # of three bytes, as a drawn scene's PNG keeps it; 0.6 was met
ROW = 700  # bytes of an image's captions and facts
TABLE = 20_000  # bytes beside the images
CONVERTED = 1.1  # what pictures that are kept in another form add
MINIATURE = 12_000_000  # bytes of a checkpoint made here; 7.1 million were met
CARD = 20_000  # bytes beside an adapter's weights: configuration and card
CAPTION, TOKEN = 60, 6  # bytes of a caption's record, and of each of its tokens
FLAT = {"split": 20_000, "caption-stats": 2_000_000, "evaluate": 100_000, "report": 9_000_000}  # whatever is counted
EACH = {"split": 50, "caption-stats": 3_000, "evaluate": 100, "report": 0}  # an image; of evaluate, a row's image


@dataclass(frozen=True)
class Written:
    """Some bytes that will stand at `path`, a file or a folder; `output`: DVC will keep them in its cache, too."""

    what: str
    path: Path
    size: int
    output: bool = True


def require(stage: str, parts: Sequence[Written]) -> None:
    """Raises `UserError` where a disk cannot hold what `stage` will write: how much, of what, and how much is free."""
    faults = [line for folder, wanted in _by_disk(parts).items() if (line := _fault(stage, folder, wanted))]
    if faults:
        raise UserError("\n  ".join(faults))


def _by_disk(parts: Iterable[Written]) -> dict[Path, list[tuple[str, int]]]:
    """What each disk, named by a folder on it, must hold besides what is there."""
    disks: dict[int, Path] = {}
    wanted: dict[Path, list[tuple[str, int]]] = defaultdict(list)
    cache = cache_folder()
    for part in parts:
        places = [(part.what, part.path, part.size - length(part.path))]
        if part.output and cache is not None:
            places.append((f"DVC's copy of {part.what}", cache, part.size))
        for what, path, size in places:
            folder = _there(path)
            wanted[disks.setdefault(folder.stat().st_dev, folder)].append((what, max(size, 0)))
    return wanted


def _fault(stage: str, folder: Path, wanted: Sequence[tuple[str, int]]) -> str | None:
    free, needed = shutil.disk_usage(folder).free, sum(size for _, size in wanted)
    if needed <= free:
        return None
    parts = ", ".join(f"{what} {told(size)}" for what, size in wanted if size)
    remedy = "free some (`make gc` shows what can go), or keep DVC's cache on another disk (`dvc cache dir --local`)"
    return f"{stage} will write about {told(needed)} ({parts}), the disk of {folder} has {told(free)} free; {remedy}"


def _there(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return path if path.exists() else _there(path.parent)


def cache_folder() -> Path | None:
    """Where DVC copies outputs to; None where it links them."""
    from dvc.config import Config, ConfigError

    try:
        settings = Config(str(DVC.resolve()))["cache"]  # the machine's, the user's, the project's, the checkout's
    except (ConfigError, UnicodeDecodeError):  # DVC itself will say so
        settings = {}
    types = settings.get("type", ["reflink", "copy"])
    if types[0] in LINKS or types == ["reflink"]:
        return None
    return Path(settings.get("dir", DVC / "cache"))


def drawn_images(out: Path, images: int, side: int) -> list[Written]:
    """The Parquet file of `images` drawn scenes of `side` pixels."""
    return [Written(out.name, out, int(images * (3 * side**2 * PIXEL + ROW) + TABLE))]


def copied_images(out: Path, held: int, share: float) -> list[Written]:
    """The Parquet file of a `share` of pictures that take `held` bytes where they are."""
    return [Written(out.name, out, int(CONVERTED * share * held + TABLE))]


def fetched_images(out: Path, downloads: Path, size: int, images: int, rows: int | None) -> list[Written]:
    """Shards of `size` bytes from the Hub, which stay in `downloads`, and the Parquet file of `images` of their `rows`;
    where their number is not known before they are there, without that file."""
    shards = Written("shards", downloads, size, output=False)
    return [shards, *(copied_images(out, size, min(images / rows, 1.0)) if rows else [])]


def checkpoint(folder: Path, size: int = MINIATURE) -> list[Written]:
    """Weights and what is beside them; by default those of a checkpoint that is made here."""
    return [Written("weights", folder, size)]


def captions(out: Path, images: int, maximum_tokens: int) -> list[Written]:
    return [Written("captions", out, images * (CAPTION + TOKEN * maximum_tokens))]


def results(stage: str, folder: Path, images: int = 0) -> list[Written]:
    """Tables, figures and numbers of a stage that reads `images`: `FLAT` and `EACH`."""
    return [Written("results", folder / stage, FLAT[stage] + EACH[stage] * images, output=stage != "report")]
