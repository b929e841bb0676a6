"""Caption the tiles of a scene, and save what is done, so that an interrupted run goes on.

Captions are saved by groups of tiles that are decoded together, since a model's last digits depend on the group: a run
that goes on captions the same groups, and so writes the same bytes.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout
from PIL import Image

from captioning.base.errors import UserError
from captioning.commands.scenes.scene import OpenScene, Tile
from captioning.runtime.paths import SCENES
from captioning.runtime.progress import progress
from captioning.runtime.resume import Results


class TileCaption(NamedTuple):
    """The caption of a tile, its mean log-probability, and the share of the tile's pixels that have data."""

    caption: str
    confidence: float
    valid: float


CaptionImages = Callable[[Sequence[Image.Image]], Sequence[tuple[str, float]]]


def caption_tiles(
    scene: OpenScene, tiles: Sequence[Tile], group: int, results: Results, caption: CaptionImages
) -> list[TileCaption | None]:
    """Return a caption of each tile, None for those skipped; `group` tiles are captioned at once and saved."""
    groups = [tiles[start : start + group] for start in range(0, len(tiles), group)]
    completed = len(results.results)
    if remaining := groups[completed:]:
        with progress(None, sum(map(len, remaining)), "tiles") as bar:
            for members in remaining:
                results.add(_caption_group(scene, members, caption))
                bar.update(len(members))
    return [text and TileCaption(*text) for texts in results.results for text in texts]


def _caption_group(scene: OpenScene, tiles: Sequence[Tile], caption: CaptionImages) -> list[TileCaption | None]:
    readings = [scene.read_tile(tile) for tile in tiles]
    images = [image for image, _ in readings if image is not None]
    texts = iter(caption(images) if images else [])
    return [None if image is None else TileCaption(*next(texts), round(share, 4)) for image, share in readings]


@contextmanager
def saved_captions(scene: OpenScene, settings: Mapping[str, object]) -> Iterator[Results]:
    """Give the captions of an interrupted run of the same scene with the same `settings`; remove them at the end.

    Raises `UserError` if such a run is at work.
    """
    status, rendering = scene.path.stat(), scene.rendering
    values = [rendering.bands, rendering.alpha, rendering.low, rendering.high, rendering.notes]
    identity = [str(scene.path.resolve()), status.st_size, status.st_mtime_ns, values, settings]
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    path, lock = SCENES / f"{key}.jsonl", SCENES / f"{key}.lock"
    SCENES.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            results = Results(path)
            if texts := sum(map(len, results.results)):
                print(f"going on after {texts:,} tiles of an interrupted run", file=sys.stderr)
            yield results
            results.file.close()
            remove_saved(path, lock)
    except Timeout:
        raise UserError(f"{scene.path}: another run captions it in the same way; wait for it") from None


def remove_saved(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
