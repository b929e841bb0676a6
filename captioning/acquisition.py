"""The images of the profile's source, opened and counted, with room for them on the disk."""

from pathlib import Path

from captioning import disk, hub
from captioning.archives import archive
from captioning.origins import find_archive, find_shards, look_for_shards
from captioning.params import Data, Declared
from captioning.places import DOWNLOADS
from captioning.rows import Source
from captioning.runlog import UserError
from captioning.shards import shards
from captioning.sizes import length
from captioning.sources import folder, overhead

PARQUET, RAW = Path("data/captions/images.parquet"), Path("data/raw")


def open_source(data: Data) -> Source:
    """The drawn world, a folder, an archive, or the Hub. Raises `UserError` where the source cannot be had, does not
    hold what it is declared to hold, or the disk cannot hold its images."""
    source = _opened(data)
    _check_declared(data.declared, source, data.source)
    if data.source != "hub":  # of whose shards it was told before they were fetched
        disk.require("download", _images_size(data, source))
    return source


def _opened(data: Data) -> Source:
    path, draw = Path(data.path), (data.images, data.seed)
    if data.source == "overhead":
        return overhead(data.images, data.image_size, data.seed)
    if data.source == "archive":
        return archive(find_archive(path), *draw)
    if data.source == "folder":
        _refuse_link(path / "resized")
        found = find_shards(path)
        return shards(found, path.name, *draw) if found else folder(path, *draw)
    snapshot, wanted = look_for_shards(data.repository, data.revision)
    downloads = DOWNLOADS / "datasets" / data.repository.replace("/", "--")
    size, rows = sum(file.size for file in wanted), data.declared.images if data.declared else None
    disk.require("download", disk.fetched_images(PARQUET, downloads, size, data.images, rows))
    there = hub.fetch(snapshot, wanted, downloads)
    source = shards(there, data.repository.rpartition("/")[2], *draw)
    disk.require("download", disk.copied_images(PARQUET, size, source.total / max(source.rows, 1)))
    source.origin |= {"repository": data.repository, "revision": data.revision, "commit": snapshot.commit}
    return source


def _refuse_link(pictures: Path) -> None:
    """DVC follows no link to a folder, so it would take the stage for up to date whatever changed there."""
    if RAW in pictures.parents and pictures.is_symlink() and pictures.is_dir():
        raise UserError(
            f"{pictures} is a link to a folder, behind which DVC sees no change; put the images there, or set "
            f"data.path to the folder above {pictures.resolve()} and run `dvc repro -f download` after a change"
        )


def _images_size(data: Data, source: Source) -> list[disk.Written]:
    """What the Parquet file of `source` will take, by the drawn pictures or by those that are there."""
    if data.source == "overhead":
        return disk.drawn_images(PARQUET, source.total, data.image_size)
    path = Path(data.path)
    if data.source == "archive":
        held = length(find_archive(path))
    elif found := find_shards(path):
        held = sum(map(length, found.values()))
    else:
        held = length(path / "resized" if (path / "resized").is_dir() else path)
    return disk.copied_images(PARQUET, held, source.total / max(source.rows, 1))


def _check_declared(declared: Declared | None, source: Source, kind: str) -> None:
    """Raises `UserError` where the source does not hold what params.yaml says it must, all differences at once."""
    if declared is None:
        return
    found = {"images": source.rows, "captions": source.captions}
    if declared.sha256 and kind == "archive":
        found["sha256"] = source.origin["sha256"]
    wrong = [
        f"{value} {key} where data.declared says {getattr(declared, key)}"
        for key, value in found.items()
        if value != getattr(declared, key)
    ]
    if wrong:
        raise UserError(f"the {kind} holds {' and '.join(wrong)}; mend the {kind}, or set data.declared to null")
