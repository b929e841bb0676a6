"""Outlines of tiles as GeoJSON (RFC 7946) wants them: WGS 84, longitude first, counter-clockwise, cut at +-180.

GDAL's own cut is not used: it takes a tile across the antimeridian of Web Mercator for a belt around the earth, and
loses a pole. Here the points of a ring are transformed one by one, and their longitudes counted on without a jump:

    179, -179  becomes  179, 181;   a ring that does not close has gone round a pole

Then the ring is cut at each odd multiple of 180 degrees. Longitudes of a system of degrees do not jump as they are.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float
from rasterio.crs import CRS
from rasterio.warp import transform

from captioning.data.pictures.tiff import GDAL_ERRORS

Geometry = dict[str, Any]  # GeoJSON
Ring = list[tuple[float, float]]  # corners, of which the first is not repeated
WGS_84 = CRS.from_epsg(4326)
DECIMALS = 7  # of a degree: a centimetre
SIDE_POINTS = 8  # of each side, which may be curved on the earth
STRAIGHT = 0.005  # of a tile's extent in degrees: a side that is less curved is given by its corners
OFF_EARTH = 0.05  # of a tile's extent: a point that comes back so far from where it was is not on the earth
WORLD = 360.0  # degrees
POLE = 90 - 1e-7  # degrees
BATCH = 1000  # tiles that are transformed together


@dataclass(frozen=True)
class System:
    """A coordinate reference system; `degrees` of its unit, if it has plain longitudes and latitudes."""

    crs: CRS
    degrees: float | None
    repeats: bool  # beyond the antimeridian, as degrees and Mercator's projection do

    @classmethod
    def from_crs(cls, crs: CRS) -> "System":
        horizontal: dict[str, Any] = crs.to_dict(projjson=True)
        while inner := horizontal.get("source_crs") or (horizontal.get("components") or [None])[0]:
            horizontal = inner
        if horizontal.get("type") == "GeographicCRS":
            return cls(crs, math.degrees(crs.units_factor[1]), True)
        method = str(horizontal.get("conversion", {}).get("method", {}).get("name", ""))
        is_turned = "Transverse" in method or "Oblique" in method
        return cls(crs, None, not is_turned and ("Cylindrical" in method or "Mercator" in method))

    def to_wgs_84(self, points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "points 3"] | None:
        """Return longitude, latitude, and how far from each point their own transform is; None if GDAL refuses."""
        if self.degrees:  # cells around a pole reach beyond it
            points = np.column_stack([points[:, 0], points[:, 1].clip(-90 / self.degrees, 90 / self.degrees)])
        try:
            degrees = np.column_stack(transform(self.crs, WGS_84, *points.T))
            back = points if self.repeats else np.column_stack(transform(WGS_84, self.crs, *degrees.T))
        except (*GDAL_ERRORS, SystemError, ValueError):  # SystemError: what GDAL cannot explain
            return None
        if self.degrees:  # GDAL may have turned them round
            degrees[:, 0] += WORLD * np.round((points[:, 0] * self.degrees - degrees[:, 0]) / WORLD)
        errors = np.where(np.isfinite(degrees).all(axis=1), np.abs(back - points).max(axis=1), np.nan)
        return np.column_stack([degrees, errors])


def outline_tiles(crs: CRS, tiles: Sequence[Ring]) -> list[Geometry | None]:
    """Return a polygon for each tile, given by its corners in `crs`; None if it is not wholly on the earth."""
    system = System.from_crs(crs)
    batches = [tiles[start : start + BATCH] for start in range(0, len(tiles), BATCH)]
    return [outline for batch in batches for outline in _outline_batch(system, batch)]


def _outline_batch(system: System, tiles: Sequence[Ring]) -> Iterator[Geometry | None]:
    points = np.array([_divide(tile) for tile in tiles])
    degrees = system.to_wgs_84(points.reshape(-1, 2))
    if degrees is None and len(tiles) > 1:
        for tile in tiles:
            yield from _outline_batch(system, [tile])
    elif degrees is None:
        yield None
    else:
        for tile, rows in zip(tiles, np.split(degrees, len(tiles)), strict=True):
            extent = np.ptp(np.array(tile), axis=0).max()
            is_on_earth = bool((rows[:, 2] <= OFF_EARTH * extent).all())  # False for a number that is none
            ring: Ring = [(x, y) for x, y, _ in rows.tolist()]
            if is_on_earth and not system.degrees:
                ring = _count_on(ring, math.copysign(1, _area(tile)))
            yield _outline(ring) if is_on_earth else None


def make_polygon(ring: Ring) -> Geometry:
    return {"type": "Polygon", "coordinates": [_close(ring)]}


def _divide(corners: Ring) -> Ring:
    """Return `SIDE_POINTS` points of each side, its first corner included."""
    shares = [number / SIDE_POINTS for number in range(SIDE_POINTS)]
    return [
        (x0 + share * (x1 - x0), y0 + share * (y1 - y0))
        for (x0, y0), (x1, y1) in pairwise(_close(corners))
        for share in shares
    ]


def _count_on(points: Ring, direction: float) -> Ring:
    """Return the ring with longitudes that do not jump; `direction` is 1 if it is counter-clockwise in its system.

    A pole has every longitude: at the edge it becomes two points, and around it the ring goes along it.
    """
    start = next((number for number, (_, y) in enumerate(points) if abs(y) < POLE), 0)
    ring = [points[start]]
    for x, y in [*points[start + 1 :], *points[: start + 1]]:
        if abs(y) >= POLE:
            ring.append((ring[-1][0], y))
            continue
        x -= WORLD * round((x - ring[-1][0]) / WORLD)
        ring += [(x, ring[-1][1])] if abs(ring[-1][1]) >= POLE else []
        ring.append((x, y))
    if turn := round((ring[-1][0] - ring[0][0]) / WORLD):
        pole = math.copysign(90, turn * direction)  # to the east and counter-clockwise: the north pole
        return [*ring, (ring[-1][0], pole), (ring[0][0], pole)]
    return ring[:-1]


def _outline(ring: Ring) -> Geometry | None:
    """Return the polygon of a ring in degrees whose longitudes do not jump; None if it is empty."""
    ring = [(round(x, DECIMALS), round(y, DECIMALS)) for x, y in _straighten(ring)]
    longitudes = [x for x, _ in ring]
    first, last = math.floor((min(longitudes) + 180) / WORLD), math.ceil((max(longitudes) + 180) / WORLD) - 1
    parts = [_clip(_move(ring, -WORLD * world)) for world in range(first, max(first, last) + 1)]
    polygons = [[_close(_orient(part))] for part in parts if _area(part)]
    if len(polygons) > 1:
        return {"type": "MultiPolygon", "coordinates": polygons}
    return {"type": "Polygon", "coordinates": polygons[0]} if polygons else None


def _straighten(ring: Ring) -> Ring:
    """Return the corners alone if the sides between them are straight enough."""
    corners = ring[::SIDE_POINTS]
    if len(ring) != 4 * SIDE_POINTS:  # it has a pole
        return ring
    errors = np.abs(np.array(ring) - np.array(_divide(corners))).max(axis=0)
    return corners if (errors <= STRAIGHT * np.ptp(np.array(ring), axis=0)).all() else ring


def _move(ring: Ring, degrees: float) -> Ring:
    return [(round(x + degrees, DECIMALS), y) for x, y in ring]


def _clip(ring: Ring) -> Ring:
    """Return the part of a ring whose longitudes are from -180 to 180 (Sutherland and Hodgman 1974)."""
    for limit in (180.0, -180.0):
        kept: Ring = []
        for (x0, y0), (x1, y1) in pairwise(_close(ring)):
            is_kept, is_next_kept = (x * limit <= limit * limit for x in (x0, x1))
            kept += [(x0, y0)] if is_kept else []
            if is_kept != is_next_kept:
                kept.append((limit, round(y0 + (limit - x0) / (x1 - x0) * (y1 - y0), DECIMALS)))
        ring = [point for point, other in pairwise(_close(kept)) if point != other]
    return ring


def _area(ring: Ring) -> float:
    """Return twice the area, positive if the ring is counter-clockwise."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(_close(ring)))


def _orient(ring: Ring) -> Ring:
    """Return the ring counter-clockwise, as RFC 7946 wants outer ones; those of a mirrored scene are not."""
    return ring[::-1] if _area(ring) < 0 else ring


def _close(ring: Ring) -> Ring:
    return [*ring, *ring[:1]]
