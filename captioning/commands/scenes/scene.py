"""Open a scene, cut it into tiles, and read these one by one, so that memory is bounded whatever the scene's size.

1. Tiles have the asked size in pixels. The last ones of a row or column are moved inwards, since a narrow remainder
   would reach the model distorted; they overlap their neighbours. A scene smaller than a tile is one tile.
2. Bands and the range of values are those of the whole scene (data/pictures/tiff.py), so that tiles can be compared.
3. Tiles whose valid pixels all have one colour, such as those of a black border, get no caption, since it would be a
   confident guess.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from captioning.data.pictures.tiff import Rendering, open_tiff, plan_rendering, read_values, to_image
from captioning.images.decoded import UnreadableImage, finish

MAX_TILE, MAX_TILES = 4096, 200_000  # pixels of a side, and tiles of a scene
MAX_BLOCK_BYTES = 512 << 20  # GDAL decodes a whole block at once
PICTURE_SIDE = 2048  # pixels of the longer side of the scene's picture


@dataclass(frozen=True)
class Tile:
    """A part of a scene: the column and row of its top left pixel, and its size in pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class OpenScene:
    """An open scene."""

    path: Path
    dataset: DatasetReader
    rendering: Rendering

    def read_tile(self, tile: Tile) -> tuple[Image.Image | None, float]:
        """Return the tile as RGB, None if it has no data or one colour, and the share of its pixels that have data."""
        values = read_values(self.dataset, self.rendering, Window(tile.x, tile.y, tile.width, tile.height))
        if not values.has_data.any():
            return None, 0.0
        image = finish(to_image(values, self.rendering), 1)[0]
        colours = np.asarray(image)[values.has_data]
        return None if (colours == colours[0]).all() else image, values.has_data.mean().item()

    def read_picture(self) -> Image.Image:
        """Return the whole scene as RGB, with a longer side of at most `PICTURE_SIDE`."""
        scale = min(1, PICTURE_SIDE / max(self.dataset.width, self.dataset.height))
        shape = max(1, round(self.dataset.height * scale)), max(1, round(self.dataset.width * scale))
        is_mixable = self.rendering.palette is None and not self.rendering.marks  # means of marks are no marks
        resampling = Resampling.average if is_mixable and scale < 1 else Resampling.nearest
        values = read_values(self.dataset, self.rendering, shape=shape, resampling=resampling)
        return finish(to_image(values, self.rendering), 1)[0]


@contextmanager
def open_scene(path: Path, bands: tuple[int, ...] | None) -> Iterator[OpenScene]:
    """Open a TIFF. Raises `UnreadableImage`, also for damage that is only seen when a tile is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing coordinates, which get a note
        if str(path) != str(path).encode("utf-8", "replace").decode():
            raise UnreadableImage("its path is not UTF-8, which GDAL needs; rename it")
        with open_tiff(path) as tiff:
            _require_small_blocks(tiff.dataset)
            yield OpenScene(path, tiff.dataset, plan_rendering(tiff, bands))


def _require_small_blocks(dataset: DatasetReader) -> None:
    height, width = dataset.block_shapes[0]
    bands = dataset.count if dataset.profile.get("interleave") == "pixel" else 1
    block_bytes = height * width * bands * max(_item_bytes(name) for name in dataset.dtypes)
    if block_bytes > MAX_BLOCK_BYTES:
        raise UnreadableImage(
            f"its blocks of {width} × {height} pixels need {block_bytes / 1e9:.1f} GB of memory each; "
            "rewrite it with `gdal_translate -co TILED=YES`"
        )


def _item_bytes(dtype: str) -> int:
    return max(int(dtype.lstrip("abcdefghijklmnopqrstuvwxyz_")) // 8, 4 if dtype.startswith("complex") else 1)


def cut_tiles(width: int, height: int, size: int) -> list[Tile]:
    """Return the tiles of a scene of `width` × `height` pixels, in rows from the top left."""
    columns, rows = _starts(width, size), _starts(height, size)
    return [Tile(x, y, min(size, width), min(size, height)) for y in rows for x in columns]


def _starts(length: int, size: int) -> list[int]:
    return [*range(0, length - size, size), length - size] if length > size else [0]
