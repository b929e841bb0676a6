"""Write the captions of a scene as GeoJSON, or as a map in one HTML page that fetches nothing.

GeoJSON is in WGS 84 by definition (RFC 7946). A scene without georeference gets pixel coordinates, and the member `crs`
of older GeoJSON with a system of its own, so that GDAL, QGIS and geopandas do not take them for degrees.
"""

import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from captioning.commands.scenes.captions import TileCaption
from captioning.commands.scenes.georeference import Georeference, find_georeference
from captioning.commands.scenes.outlines import Geometry
from captioning.commands.scenes.scene import OpenScene, Tile
from captioning.report.viewer.html import make_jpeg_uri, render_template

PIXEL_SYSTEM = 'LOCAL_CS["pixels",UNIT["pixel",1],AXIS["column",EAST],AXIS["row",SOUTH]]'  # in WKT
LINE_CHARACTERS = 24  # of a caption on the map
JPEG_QUALITY = 85
DECIMALS = 5  # of a degree on the map: a metre


@dataclass(frozen=True)
class SceneMap:
    """The captions of a scene by tile, None for a tile without data or of one colour."""

    scene: OpenScene
    row: str
    tiles: Sequence[Tile]
    captions: Sequence[TileCaption | None]

    @cached_property
    def georeference(self) -> Georeference:
        return find_georeference(self.scene.dataset)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What was done with the scene, in a few words each."""
        skipped = sum(caption is None for caption in self.captions)
        lost = sum(outline is None for outline in self.outlines)
        beyond = f"{lost:,} of {len(self.outlines):,} captioned tiles reach beyond the earth and have no polygon"
        tiles = (f"{skipped:,} of {len(self.tiles):,} tiles have no data or one colour, skipped",) if skipped else ()
        return (*self.scene.rendering.notes, *self.georeference.notes, *tiles, *((beyond,) if lost else ()))

    @cached_property
    def captioned(self) -> list[tuple[Tile, TileCaption]]:
        """The tiles that have a caption."""
        pairs = zip(self.tiles, self.captions, strict=True)
        return [(tile, caption) for tile, caption in pairs if caption is not None]

    @cached_property
    def outlines(self) -> list[Geometry | None]:
        """The outlines of `captioned`."""
        return self.georeference.outlines([tile for tile, _ in self.captioned])


def format_geojson(scene_map: SceneMap) -> str:
    """Return a FeatureCollection, one tile a line."""
    head: dict[str, object] = {"type": "FeatureCollection", "name": scene_map.scene.path.stem, "notes": scene_map.notes}
    if scene_map.georeference.crs is None:
        head["crs"] = {"type": "name", "properties": {"name": PIXEL_SYSTEM}}
    opening = json.dumps(head, ensure_ascii=False)[:-1]
    features = ",\n".join(json.dumps(feature, ensure_ascii=False) for feature in _features(scene_map))
    return f'{opening}, "features": [\n{features}\n]}}\n'.encode("utf-8", "replace").decode()


def _features(scene_map: SceneMap) -> Iterator[dict[str, object]]:
    for (tile, text), outline in zip(scene_map.captioned, scene_map.outlines, strict=True):
        properties = {"caption": text.caption, "row": scene_map.row, "confidence": text.confidence, "valid": text.valid}
        yield {"type": "Feature", "geometry": outline, "properties": properties | vars(tile)}


def format_html(scene_map: SceneMap) -> str:
    """Return the page."""
    scene = scene_map.scene
    content = {
        "name": scene.path.name.encode("utf-8", "replace").decode(),
        "row": scene_map.row,
        "notes": scene_map.notes,
        "width": scene.dataset.width,
        "height": scene.dataset.height,
        "picture": make_jpeg_uri(scene.read_picture(), JPEG_QUALITY),
        "labels": list(_labels(scene_map)),
    }
    return render_template("captioning.commands.scenes", "map.html.j2", content) + "\n"


def _labels(scene_map: SceneMap) -> Iterator[dict[str, object]]:
    is_placed = scene_map.georeference.crs is not None
    for (tile, text), outline in zip(scene_map.captioned, scene_map.outlines, strict=True):
        yield {
            "tile": tile,
            "caption": text.caption,
            "lines": textwrap.wrap(text.caption, LINE_CHARACTERS) or [""],
            "size": min(tile.width, tile.height) / LINE_CHARACTERS * 1.7,  # pixels of the scene; a letter is 0.55 wide
            "confidence": text.confidence,
            "place": _name_centre(outline) if is_placed else f"column {tile.x}, row {tile.y}",
        }


def _name_centre(outline: Geometry | None) -> str:
    """Return the centre of a polygon as text; of a tile across the antimeridian, that of its first part."""
    if outline is None:
        return "no coordinates"
    ring = outline["coordinates"][0] if outline["type"] == "Polygon" else outline["coordinates"][0][0]
    longitude, latitude = (sum(pair[axis] for pair in ring[:-1]) / (len(ring) - 1) for axis in (0, 1))
    east, north = "E" if longitude >= 0 else "W", "N" if latitude >= 0 else "S"
    return f"{abs(latitude):.{DECIMALS}f}° {north}, {abs(longitude):.{DECIMALS}f}° {east}"


MAP_FORMATS: dict[str, Callable[[SceneMap], str]] = {"geojson": format_geojson, "html": format_html}
