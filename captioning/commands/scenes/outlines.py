"""Outlines of tiles as GeoJSON (RFC 7946) wants them: WGS 84, longitude first, counter-clockwise, cut at +-180.

GDAL's own cut is not used: it takes a tile across the antimeridian of Web Mercator for a belt around the earth, and
loses a pole. Here the points of a ring are transformed one by one, and their longitudes counted on without a jump:

    179, -179  becomes  179, 181;   a ring that does not close has gone round a pole

Then the ring is cut at each odd multiple of 180 degrees.
"""

import math
from collections.abc import Sequence
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
OFF_EARTH = 0.05  # of a tile's extent: a point that comes back so far from where it was is not on the earth
WORLD = 360.0  # degrees
POLE = 90 - 1e-7  # degrees


def outline_tiles(crs: CRS, tiles: Sequence[Ring]) -> list[Geometry | None]:
    """Return a polygon for each tile, given by its corners in `crs`; None if it is not wholly on the earth."""
    points = [_divide(tile) for tile in tiles]
    degrees = _to_wgs_84(crs, np.array([point for ring in points for point in ring]).reshape(-1, 2))
    outlines = []
    for corners, rows in zip(points, np.split(degrees, len(tiles)) if tiles else [], strict=True):
        extent = float(np.ptp(np.array(corners), axis=0).max())
        is_on_earth = bool((rows[:, 2] <= OFF_EARTH * extent).all())  # False for a number that is none
        outlines.append(_outline([(x, y) for x, y, _ in rows.tolist()]) if is_on_earth else None)
    return outlines


def make_polygon(ring: Ring) -> Geometry:
    return {"type": "Polygon", "coordinates": [_close(ring)]}


def _divide(corners: Ring) -> Ring:
    """Return `SIDE_POINTS` points of each side, its first corner included."""
    shares = [number / SIDE_POINTS for number in range(SIDE_POINTS)]
    sides = pairwise([*corners, corners[0]])
    return [(x0 + share * (x1 - x0), y0 + share * (y1 - y0)) for (x0, y0), (x1, y1) in sides for share in shares]


def _to_wgs_84(crs: CRS, points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, "points 3"]:
    """Return longitude, latitude, and how far from the point their own transform is; not numbers if GDAL refuses."""
    if crs.is_geographic:
        points = np.column_stack([points[:, 0], points[:, 1].clip(-90, 90)])  # cells around a pole reach beyond it
    try:
        degrees = np.column_stack(transform(crs, WGS_84, *points.T))
        back = np.column_stack(transform(WGS_84, crs, *degrees.T))
    except (*GDAL_ERRORS, SystemError, ValueError):  # SystemError: what GDAL cannot explain
        if len(points) == 1:
            return np.full((1, 3), np.nan)
        return np.concatenate([_to_wgs_84(crs, point) for point in np.split(points, len(points))])
    errors = np.zeros(len(points)) if _repeats(crs) else np.abs(back - points).max(axis=1)
    return np.column_stack([degrees, np.where(np.isfinite(degrees).all(axis=1), errors, np.nan)])


def _repeats(crs: CRS) -> bool:
    """Return whether the system goes on beyond the antimeridian, as degrees and Mercator's projection do."""
    if crs.is_geographic:
        return True
    method = str(crs.to_dict(projjson=True).get("conversion", {}).get("method", {}).get("name", ""))
    return "Cylindrical" in method or ("Mercator" in method and not {"Transverse", "Oblique"} & {*method.split()})


def _outline(points: Ring) -> Geometry | None:
    """Return the polygon of the points of `_divide`, in degrees: its corners alone if it is not cut. None if it
    is empty."""
    ring, has_pole = _count_on(points)
    longitudes = [round(x, DECIMALS) for x, _ in ring]
    first, last = math.floor((min(longitudes) + 180) / WORLD), math.ceil((max(longitudes) + 180) / WORLD) - 1
    if first >= last and not has_pole:
        parts = [_move(ring[::SIDE_POINTS], -WORLD * first)]
    else:
        parts = [_clip(_move(ring, -WORLD * world), 180) for world in range(first, max(first, last) + 1)]
    polygons = [[_close(_orient(part))] for part in parts if _area(part)]
    if len(polygons) > 1:
        return {"type": "MultiPolygon", "coordinates": polygons}
    return {"type": "Polygon", "coordinates": polygons[0]} if polygons else None


def _count_on(points: Ring) -> tuple[Ring, bool]:
    """Return the ring with longitudes that do not jump, and whether it has a pole, within or at its edge.

    A pole has every longitude: at the edge it becomes two points, within it the ring goes along it.
    """
    start = next((number for number, (_, y) in enumerate(points) if abs(y) < POLE), 0)
    ring, has_pole = [points[start]], False
    for x, y in [*points[start + 1 :], *points[: start + 1]]:
        if abs(y) >= POLE:
            ring.append((ring[-1][0], y))
            has_pole = True
            continue
        x -= WORLD * round((x - ring[-1][0]) / WORLD)
        ring += [(x, ring[-1][1])] if abs(ring[-1][1]) >= POLE else []
        ring.append((x, y))
    if round((ring[-1][0] - ring[0][0]) / WORLD):
        pole = math.copysign(90, sum(y for _, y in points))
        return [*ring, (ring[-1][0], pole), (ring[0][0], pole)], True
    return ring[:-1], has_pole


def _move(ring: Ring, degrees: float) -> Ring:
    return [(round(x + degrees, DECIMALS), round(y, DECIMALS)) for x, y in ring]


def _clip(ring: Ring, limit: float) -> Ring:
    """Return the part of a ring whose longitudes are from -`limit` to `limit` (Sutherland and Hodgman 1974)."""
    for sign in (1, -1):
        kept: Ring = []
        for (x0, y0), (x1, y1) in pairwise([*ring, ring[0]] if ring else []):
            if sign * x0 <= limit:
                kept.append((x0, y0))
            if (sign * x0 <= limit) != (sign * x1 <= limit):
                share = (sign * limit - x0) / (x1 - x0)
                kept.append((sign * limit, round(y0 + share * (y1 - y0), DECIMALS)))
        ring = kept
    return ring


def _area(ring: Ring) -> float:
    """Return twice the area in square degrees, positive if the ring is counter-clockwise."""
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(_close(ring)))


def _orient(ring: Ring) -> Ring:
    """Return the ring counter-clockwise, as RFC 7946 wants outer ones; those of a mirrored scene are not."""
    return ring[::-1] if _area(ring) < 0 else ring


def _close(ring: Ring) -> Ring:
    return [*ring, *ring[:1]]
