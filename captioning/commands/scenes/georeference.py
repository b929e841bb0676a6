"""Find where on the earth a scene is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import from_gcps
from rasterio.warp import transform

from captioning.commands.scenes.outlines import WGS_84, Geometry, Ring, make_polygon, outline_tiles
from captioning.commands.scenes.scene import Tile
from captioning.data.pictures.tiff import GDAL_ERRORS

PIXEL_NOTE = "so coordinates are pixels: column and row, from the top left corner"


@dataclass(frozen=True)
class Georeference:
    """From pixels to a coordinate reference system; None: to pixels."""

    transform: Affine
    crs: CRS | None
    notes: tuple[str, ...] = ()

    def outlines(self, tiles: Sequence[Tile]) -> list[Geometry | None]:
        """Return the outline of each tile; None if it is not wholly on the earth."""
        rings = [[self.transform @ corner for corner in _corners(tile)] for tile in tiles]
        if self.crs is None:
            return [make_polygon(ring) for ring in rings]
        return outline_tiles(self.crs, rings)


def find_georeference(dataset: DatasetReader) -> Georeference:
    """Return the georeference of a scene, by its transform or by an affine fit of its ground control points."""
    affine, crs, points = dataset.transform, dataset.crs, dataset.gcps[0]
    notes: tuple[str, ...] = ()
    if affine.is_identity and len(points) >= 3:
        affine, crs = from_gcps(points), dataset.gcps[1]
        notes = (f"placed by an affine fit of {len(points)} ground control points",)
    if affine.is_identity:
        means = "it has RPCs only; `gdalwarp -rpc` orthorectifies it" if dataset.rpcs else "no georeference"
        return _pixel_coordinates(means)
    if crs is None:
        return _pixel_coordinates("no coordinate reference system")
    if not _is_on_earth(dataset, affine, crs):
        return _pixel_coordinates("its coordinate reference system is not tied to the earth")
    return Georeference(affine, crs, notes)


def _pixel_coordinates(reason: str) -> Georeference:
    return Georeference(Affine.identity(), None, (f"{reason}, {PIXEL_NOTE}",))


def _is_on_earth(dataset: DatasetReader, affine: Affine, crs: CRS) -> bool:
    x, y = affine @ (dataset.width / 2, dataset.height / 2)
    try:
        longitudes, latitudes = transform(crs, WGS_84, [x], [y])
    except (*GDAL_ERRORS, SystemError, ValueError):
        return False
    return math.isfinite(longitudes[0]) and math.isfinite(latitudes[0])


def _corners(tile: Tile) -> Ring:
    """Return the corners of the tile in pixels, counter-clockwise on a map with north up."""
    left, top, right, bottom = tile.x, tile.y, tile.x + tile.width, tile.y + tile.height
    return [(left, top), (left, bottom), (right, bottom), (right, top)]
