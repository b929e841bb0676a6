"""Place tiles on the earth: polygons in WGS 84, longitude first, as GeoJSON (RFC 7946) wants them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import from_gcps
from rasterio.warp import transform, transform_geom

from captioning.commands.scenes.scene import Tile
from captioning.images.tiff import GDAL_ERRORS

WGS_84 = CRS.from_epsg(4326)
DECIMALS = 7  # of a degree: a centimetre
PIXEL_NOTE = "so coordinates are pixels: column and row, from the top left corner"
Geometry = dict[str, Any]  # GeoJSON, as rasterio takes and gives it
Ring = list[tuple[float, float]]


@dataclass(frozen=True)
class Georeference:
    """From pixels to a coordinate reference system; None: to pixels."""

    transform: Affine
    crs: CRS | None
    notes: tuple[str, ...] = ()

    def outlines(self, tiles: Sequence[Tile]) -> list[Geometry | None]:
        """Return a polygon of each tile; None if its corners have no longitude and latitude."""
        polygons = [_polygon([self.transform @ corner for corner in _corners(tile)]) for tile in tiles]
        if self.crs is None:
            return list(polygons)
        if self.crs.is_geographic:
            polygons = [_shift_to_greenwich(polygon) for polygon in polygons]
        with rasterio.Env():
            return [_orient(_transform(self.crs, polygon)) for polygon in polygons]


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
    except (*GDAL_ERRORS, ValueError):
        return False
    return math.isfinite(longitudes[0]) and math.isfinite(latitudes[0])


def _corners(tile: Tile) -> Ring:
    """Return the corners of the tile in pixels, counter-clockwise on a map with north up."""
    left, top, right, bottom = tile.x, tile.y, tile.x + tile.width, tile.y + tile.height
    return [(left, top), (left, bottom), (right, bottom), (right, top)]


def _polygon(ring: Ring) -> Geometry:
    return {"type": "Polygon", "coordinates": [[list(corner) for corner in [*ring, ring[0]]]]}


def _shift_to_greenwich(polygon: Geometry) -> Geometry:
    """Move longitudes by whole turns so that their centre is between -180 and 180; some scenes count from 0 to 360."""
    ring = polygon["coordinates"][0]
    centre = sum(x for x, _ in ring[:-1]) / (len(ring) - 1)
    turns = 360 * math.floor((centre + 180) / 360)
    return _polygon([(x - turns, y) for x, y in ring[:-1]])


def _transform(crs: CRS, polygon: Geometry) -> Geometry | None:
    """Return `polygon` in WGS 84, cut at the antimeridian."""
    try:
        geometry: Geometry = transform_geom(crs, WGS_84, polygon, precision=DECIMALS)
    except (*GDAL_ERRORS, ValueError):
        return None
    return geometry if all(math.isfinite(x) for ring in _rings(geometry) for pair in ring for x in pair) else None


def _rings(geometry: Geometry) -> list[Ring]:
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    return [ring for part in parts for ring in part]


def _orient(geometry: Geometry | None) -> Geometry | None:
    """Turn the rings counter-clockwise, as RFC 7946 wants outer ones; those of a mirrored scene are not."""
    for ring in _rings(geometry) if geometry else []:
        if sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring)) < 0:
            ring.reverse()
    return geometry
