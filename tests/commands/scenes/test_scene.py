"""Scenes written by rasterio: tiles, their pixels, their polygons against rasterio.warp, interrupted runs."""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform

from captioning.commands.scenes import captions as captions_module
from captioning.commands.scenes import scene as scene_module
from captioning.commands.scenes.captions import TileCaption, caption_tiles, saved_captions
from captioning.commands.scenes.georeference import PIXEL_NOTE, find_georeference
from captioning.commands.scenes.maps import SceneMap, format_geojson, format_html
from captioning.commands.scenes.outlines import Geometry, outline_tiles
from captioning.commands.scenes.scene import OpenScene, Tile, cut_tiles, open_scene
from captioning.data.pictures.read import read_image
from captioning.images.decoded import UnreadableImage
from captioning.runtime.resume import Results

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
ROOT = Path(__file__).parents[3]
UTM_33 = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10)}


def write_scene(path: Path, values: np.ndarray, **profile: Any) -> Path:
    bands, height, width = values.shape
    options = {"driver": "GTiff", "width": width, "height": height, "count": bands, "dtype": values.dtype} | profile
    with rasterio.open(path, "w", **options) as dataset:
        dataset.write(values)
    return path


def blocks(columns: int, rows: int, side: int = 16) -> np.ndarray:
    """Return 8-bit RGB blocks: red is the column, green the row, blue grows by 1 a pixel."""
    values = np.full((3, rows * side, columns * side), 99, np.uint8)
    values[2] += np.arange(columns * side, dtype=np.uint8)
    values[0] = (10 * np.arange(columns)).repeat(side)[None]
    values[1] = (10 * np.arange(rows)).repeat(side)[:, None]
    return values


def name_colours(images: Sequence[Image.Image]) -> list[tuple[str, float]]:
    """Caption an image by its first pixel, as a model would."""
    return [(f"red {image.getpixel((0, 0))[0]}, green {image.getpixel((0, 0))[1]}", -0.5) for image in images]


def make_map(scene: OpenScene, tmp_path: Path, size: int = 16, group: int = 4) -> SceneMap:
    tiles = cut_tiles(scene.dataset.width, scene.dataset.height, size)
    return SceneMap(scene, "mix-1", tiles, caption_tiles(scene, tiles, group, Results(tmp_path / "r"), name_colours))


def test_tiles_cover_a_scene_and_keep_their_size() -> None:
    for width, height, size in [(64, 32, 16), (70, 33, 16), (10, 40, 16), (5, 7, 16)]:
        covered = np.zeros((height, width), int)
        tiles = cut_tiles(width, height, size)
        for tile in tiles:
            assert (tile.width, tile.height) == (min(size, width), min(size, height))
            part = covered[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
            assert part.shape == (tile.height, tile.width)
            part += 1
        assert covered.min() == 1 and len(tiles) == -(-width // size) * -(-height // size)
        assert tiles == sorted(tiles, key=lambda tile: (tile.y, tile.x))
    assert cut_tiles(40, 16, 16) == [Tile(0, 0, 16, 16), Tile(16, 0, 16, 16), Tile(24, 0, 16, 16)]


def test_tiles_are_parts_of_the_whole_picture(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(200, 3000, (4, 50, 70)).astype(np.uint16)
    values[:, 20:, :30] = 65535
    path = write_scene(tmp_path / "a.tif", values, nodata=65535, tiled=True, blockxsize=16, blockysize=16)
    whole = np.asarray(read_image(path, (4, 2, 1)).image)
    with open_scene(path, (4, 2, 1)) as scene:
        for tile in cut_tiles(70, 50, 16):
            image, share = scene.read_tile(tile)
            area = np.s_[tile.y : tile.y + 16, tile.x : tile.x + 16]
            assert share == (values[0][area] != 65535).mean()
            assert image is None if share == 0 else np.array_equal(np.asarray(image), whole[area])
        assert np.array_equal(np.asarray(scene.read_picture()), whole)


@pytest.mark.parametrize(
    "profile",
    [
        UTM_33,
        {"crs": "EPSG:3857", "transform": Affine(7, 3, 1e6, 2, -8, 6e6)},
        {"crs": "EPSG:4326", "transform": from_origin(200.0, 10.0, 0.01, 0.01)},
    ],
)
def test_polygons_are_those_of_rasterio(tmp_path: Path, profile: dict[str, Any]) -> None:
    with open_scene(write_scene(tmp_path / "a.tif", blocks(3, 2), **profile), None) as scene:
        collection = json.loads(format_geojson(make_map(scene, tmp_path)))
    assert (collection["type"], len(collection["features"])) == ("FeatureCollection", 6)
    assert "crs" not in collection
    for index, feature in enumerate(collection["features"]):
        row, column = divmod(index, 3)
        properties = feature["properties"]
        assert properties["caption"] == f"red {10 * column}, green {10 * row}"
        assert (properties["row"], properties["confidence"], properties["valid"]) == ("mix-1", -0.5, 1.0)
        assert [properties[key] for key in ("x", "y", "width", "height")] == [16 * column, 16 * row, 16, 16]
        corners = [(16 * (column + dx), 16 * (row + dy)) for dx, dy in [(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)]]
        xs, ys = zip(*(profile["transform"] @ corner for corner in corners), strict=True)
        longitudes, latitudes = transform(profile["crs"], "EPSG:4326", xs, ys)
        (ring,) = feature["geometry"]["coordinates"]
        expected = np.column_stack([(np.array(longitudes) + 180) % 360 - 180, latitudes])
        assert np.allclose(ring, expected, atol=1e-6)


def test_a_hand_calculation_on_web_mercator(tmp_path: Path) -> None:
    """x = R λ, y = R ln tan(π/4 + φ/2) with R = 6378137 m; 64 pixels of 1000 m from 0, 0."""
    profile = {"crs": "EPSG:3857", "transform": from_origin(0, 0, 1000, 1000)}
    with open_scene(write_scene(tmp_path / "a.tif", blocks(4, 4), **profile), None) as scene:
        (polygon,) = find_georeference(scene.dataset).outlines([Tile(0, 0, 64, 64)])
    east = np.degrees(64_000 / 6378137)
    south = np.degrees(2 * np.arctan(np.exp(-64_000 / 6378137)) - np.pi / 2)
    assert polygon and np.allclose(
        polygon["coordinates"], [[(0, 0), (0, south), (east, south), (east, 0), (0, 0)]], atol=1e-7
    )


def area(ring: list[list[float]]) -> float:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring)) / 2


def test_a_mirrored_scene_has_counter_clockwise_polygons_too(tmp_path: Path) -> None:
    for transform_ in (from_origin(500_000, 5_000_000, 10, 10), Affine(10, 0, 500_000, 0, 10, 5_000_000)):
        path = write_scene(tmp_path / "a.tif", blocks(2, 2), crs="EPSG:32633", transform=transform_)
        with open_scene(path, None) as scene:
            for polygon in find_georeference(scene.dataset).outlines(cut_tiles(32, 32, 16)):
                assert polygon and area(polygon["coordinates"][0]) > 0


def test_a_tile_across_the_antimeridian_is_cut(tmp_path: Path) -> None:
    profile = {"crs": "EPSG:32760", "transform": from_origin(780_000, 8_000_000, 4000, 4000)}
    with open_scene(write_scene(tmp_path / "a.tif", blocks(2, 2), **profile), None) as scene:
        (shape,) = find_georeference(scene.dataset).outlines([Tile(0, 0, 32, 32)])
        page = format_html(make_map(scene, tmp_path))
    assert shape and shape["type"] == "MultiPolygon" and "° S, 1" in page
    for (ring,) in shape["coordinates"]:
        assert area(ring) > 0 and np.ptp([x for x, _ in ring]) < 2


def holds(geometry: Geometry, x: float, y: float) -> bool:
    """Return whether a point is in a geometry, by the crossings of a ray to the east."""
    parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    sides = [side for (ring,) in parts for side in pairwise(ring)]
    crossings = [(x1 - x0) * (y - y0) / (y1 - y0) + x0 > x for (x0, y0), (x1, y1) in sides if (y0 > y) != (y1 > y)]
    return sum(crossings) % 2 == 1


PLACES = {  # name: system, top left corner, size of a pixel; 64 x 64 pixels
    "Mercator across the antimeridian": ("EPSG:3857", (20_030_000, 1_000_000), 300, 4),
    "a polar tile across the antimeridian": ("EPSG:3413", (-2_600_000, 1_500_000), 20_000, 1),
    "the north pole at the corner of tiles": ("EPSG:3413", (-640_000, 640_000), 20_000, 2),
    "the north pole within a tile": ("EPSG:3413", (-600_000, 630_000), 20_000, 3),
    "the south pole within a tile": ("EPSG:3031", (-600_000, 630_000), 20_000, 3),
    "degrees across the antimeridian": ("EPSG:4326", (179.9, 10), 0.01, 4),
    "degrees beyond 180": ("EPSG:4326", (359.5, 10), 0.01, 0),
    "degrees beyond the pole": ("EPSG:4326", (10, 90.005), 0.01, 0),
}


@pytest.mark.parametrize("place", PLACES)
def test_the_centre_of_a_tile_is_in_its_polygon_alone(place: str, tmp_path: Path) -> None:
    crs, corner, pixel, least_cut = PLACES[place]
    profile = {"crs": crs, "transform": from_origin(*corner, pixel, pixel)}
    with open_scene(write_scene(tmp_path / "a.tif", blocks(4, 4), **profile), None) as scene:
        outlines = find_georeference(scene.dataset).outlines(tiles := cut_tiles(64, 64, 16))
    cut = 0
    for tile, outline in zip(tiles, outlines, strict=True):
        centre = profile["transform"] @ (tile.x + 8, tile.y + 8)
        (longitude,), (latitude,) = transform(crs, "EPSG:4326", [centre[0]], [centre[1]])
        holding = [other for other in outlines if other and holds(other, (longitude + 180) % 360 - 180, latitude)]
        assert outline and holding == [outline], (tile, outline)
        parts = outline["coordinates"] if outline["type"] == "MultiPolygon" else [outline["coordinates"]]
        points = [point for (ring,) in parts for point in ring]
        assert all(area(ring) > 0 and ring[0] == ring[-1] for (ring,) in parts)
        assert all(abs(x) <= 180 and abs(y) <= 90 for x, y in points)
        cut += len(parts) > 1
    assert cut >= least_cut


BOXES = {  # name: system; left, bottom, right, top
    "beside the pole": ("EPSG:3413", (10_000, -50_000, 110_000, 50_000)),
    "the pole on its side": ("EPSG:3413", (0, -1e6, 3e6, 2e6)),
    "the northern hemisphere and more": ("EPSG:6931", (-9e6, -9e6, 9e6, 9e6)),
    "the southern hemisphere and more": ("EPSG:6932", (-9e6, -9e6, 9e6, 9e6)),
    "the globe": ("EPSG:4326", (-180, -90, 180, 90)),
    "the globe from 0, by its pixels' centres": ("EPSG:4326", (-0.125, -90.125, 359.875, 90.125)),
    "256 degrees from pole to pole": ("EPSG:4326", (-180, -90, 76, 90)),
    "Mercator with heights": ("EPSG:3857+5773", (20_030_000, 1_000_000, 20_045_000, 1_010_000)),
}


@pytest.mark.parametrize("name", BOXES)
def test_a_polygon_holds_the_points_of_its_tile_and_no_others(name: str) -> None:
    crs, (left, bottom, right, top) = BOXES[name]
    (outline,) = outline_tiles(CRS.from_user_input(crs), [[(left, top), (left, bottom), (right, bottom), (right, top)]])
    rng, wrong, inside = random.Random(0), 0, 0
    for _ in range(600):
        x, y = left + (right - left) * rng.uniform(-0.5, 1.5), bottom + (top - bottom) * rng.uniform(-0.5, 1.5)
        if crs == "EPSG:4326" and not (abs(y) <= 90 and right - 360 <= x <= left + 360):
            continue  # a place has one longitude
        try:
            (longitude,), (latitude,) = transform(crs, "EPSG:4326", [x], [y])
        except CPLE_BaseError:  # not on the earth
            continue
        is_inside = left < x < right and bottom < y < top
        inside += is_inside
        wrong += bool(outline and holds(outline, (longitude + 180) % 360 - 180, latitude)) != is_inside
    assert inside > 100 and wrong <= 0.05 * inside, (wrong, inside)


def test_a_tile_that_reaches_beyond_the_earth_has_a_caption_and_no_polygon(tmp_path: Path) -> None:
    """The full disk of a geostationary satellite."""
    disk = {"crs": "+proj=geos +h=35786023 +lon_0=-75 +sweep=x", "transform": from_origin(-5.6e6, 5.6e6, 175e3, 175e3)}
    with open_scene(write_scene(tmp_path / "a.tif", blocks(4, 4), **disk), None) as scene:
        scene_map = make_map(scene, tmp_path)
        collection = json.loads(format_geojson(scene_map))
        assert "no coordinates" in format_html(scene_map)
    placed = [feature["geometry"] is not None for feature in collection["features"]]
    assert placed == [row in (1, 2) and column in (1, 2) for row in range(4) for column in range(4)]
    assert "12 of 16 captioned tiles reach beyond the earth and have no polygon" in collection["notes"]


def test_without_georeference_coordinates_are_pixels(tmp_path: Path) -> None:
    reasons = {"no georeference": {}, "no coordinate reference system": {"transform": UTM_33["transform"]}}
    reasons["its coordinate reference system is not tied to the earth"] = UTM_33 | {
        "crs": 'LOCAL_CS["site",UNIT["metre",1]]'
    }
    for reason, profile in reasons.items():
        with open_scene(write_scene(tmp_path / "a.tif", blocks(2, 1), **profile), None) as scene:
            scene_map = make_map(scene, tmp_path / reason)
            collection = json.loads(format_geojson(scene_map))
        assert collection["notes"] == [f"{reason}, {PIXEL_NOTE}"] == [*scene_map.notes]
        assert not rasterio.crs.CRS.from_user_input(collection["crs"]["properties"]["name"]).is_geographic
        second = collection["features"][1]["geometry"]["coordinates"][0]
        assert second == [[16, 0], [16, 16], [32, 16], [32, 0], [16, 0]]


def test_ground_control_points_place_a_scene(tmp_path: Path) -> None:
    points = [
        GroundControlPoint(row, column, 12 + column / 100, 45 - row / 100) for row in (0, 32) for column in (0, 48)
    ]
    path = write_scene(tmp_path / "a.tif", blocks(3, 2))
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = points, rasterio.crs.CRS.from_epsg(4326)
    with open_scene(path, None) as scene:
        georeference = find_georeference(scene.dataset)
        (polygon,) = georeference.outlines([Tile(16, 0, 16, 16)])
    assert georeference.notes == ("placed by an affine fit of 4 ground control points",)
    expected = [[(12.16, 45), (12.16, 44.84), (12.32, 44.84), (12.32, 45), (12.16, 45)]]
    assert polygon and np.allclose(polygon["coordinates"], expected, atol=1e-6)


def test_tiles_without_data_are_skipped_and_counted(tmp_path: Path) -> None:
    values = blocks(4, 4) + 1
    values[:, 16:, 32:] = 0
    with open_scene(write_scene(tmp_path / "a.tif", values, nodata=0, photometric="RGB", **UTM_33), None) as scene:
        scene_map = make_map(scene, tmp_path)
        assert len(json.loads(format_geojson(scene_map))["features"]) == 10
    assert scene_map.notes == ("6 of 16 tiles have no data or one colour, skipped",)
    assert [caption is None for caption in scene_map.captions] == [
        tile.x >= 32 and tile.y >= 16 for tile in scene_map.tiles
    ]


def test_tiles_of_undeclared_nodata_or_one_colour_are_skipped(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(200, 3000, (3, 32, 48)).astype(np.uint16)
    values[:, :16, :16], values[:, :16, 16:32] = 65535, 1000
    values[:, :8, 16:32] = 65535
    with open_scene(write_scene(tmp_path / "a.tif", values, **UTM_33), None) as scene:
        scene_map = make_map(scene, tmp_path)
        notes = scene_map.notes
        shares = [scene.read_tile(tile)[1] for tile in scene_map.tiles]
    assert [caption is None for caption in scene_map.captions] == [True, True] + 4 * [False]
    assert shares == [0, 0.5, 1, 1, 1, 1] and "2 of 6 tiles have no data or one colour, skipped" in notes
    assert "65535 taken as nodata, far from all other values" in notes


def test_tiles_of_a_black_border_of_8_bits_are_skipped(tmp_path: Path) -> None:
    values = blocks(3, 3)
    values[:, :16], values[:, 16, :16] = 0, 0
    with open_scene(write_scene(tmp_path / "a.tif", values, photometric="RGB", **UTM_33), None) as scene:
        scene_map = make_map(scene, tmp_path)
        assert scene_map.notes == ("3 of 9 tiles have no data or one colour, skipped",)
    assert [caption is None for caption in scene_map.captions] == 3 * [True] + 6 * [False]


def test_a_smaller_picture_of_a_scene_mixes_no_undeclared_nodata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_module, "PICTURE_SIDE", 20)
    values = np.full((1, 60, 60), 1000, np.uint16)
    values[:, 10:31], values[:, 45:] = 65535, 2000
    with open_scene(write_scene(tmp_path / "a.tif", values), None) as scene:
        picture = np.asarray(scene.read_picture())
    assert picture.shape == (20, 20, 3) and picture[:15].max() == 0 and picture[15:].min() == 255


def test_a_scene_of_one_value_is_refused(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "a.tif", np.full((3, 32, 32), 900, np.uint16))
    with pytest.raises(UnreadableImage, match="every pixel has the value 900"), open_scene(path, None):
        pass


def test_an_interrupted_run_goes_on_to_the_same_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(captions_module, "SCENES", tmp_path / "saved")
    path = write_scene(tmp_path / "a.tif", blocks(5, 4), **UTM_33)
    groups: list[int] = []

    def run(settings: dict[str, Any], limit: int) -> list[TileCaption | None]:
        def caption(images: Sequence[Image.Image]) -> list[tuple[str, float]]:
            if len(groups) == limit:
                raise KeyboardInterrupt
            groups.append(len(images))
            return name_colours(images)

        groups.clear()
        with open_scene(path, None) as scene, saved_captions(scene, settings) as results:
            return caption_tiles(scene, cut_tiles(80, 64, 16), 3, results, caption)

    whole = run({"row": "b"}, 99)
    assert groups == [3, 3, 3, 3, 3, 3, 2] and list((tmp_path / "saved").iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        run({"row": "a"}, 3)
    (saved,) = (tmp_path / "saved").glob("*.jsonl")
    with saved.open("a") as file:
        file.write('[["cut in the mid')  # as a kill leaves it
    with pytest.raises(KeyboardInterrupt):
        run({"row": "b"}, 0)
    capsys.readouterr()
    assert run({"row": "a"}, 99) == whole
    assert groups == [3, 3, 3, 2]
    assert "going on after 9 tiles of an interrupted run" in capsys.readouterr().err


def test_a_finished_run_leaves_nothing_and_two_runs_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions_module, "SCENES", tmp_path / "saved")
    path = write_scene(tmp_path / "a.tif", blocks(2, 2), **UTM_33)
    with open_scene(path, None) as scene, saved_captions(scene, {}) as results:
        caption_tiles(scene, cut_tiles(32, 32, 16), 3, results, name_colours)
        with pytest.raises(captions_module.UserError, match="another run captions it"), saved_captions(scene, {}):
            pass
    assert list((tmp_path / "saved").iterdir()) == []


def test_a_map_is_self_contained_and_escapes_captions(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "<a&b>.tif", blocks(2, 2), **UTM_33)
    with open_scene(path, None) as scene:
        tiles = cut_tiles(32, 32, 16)
        texts = [TileCaption("</script><b>a 'quoted' \"text\" & more words than a line can hold", -0.1, 1.0)] * 4
        page = format_html(SceneMap(scene, "mix-1", tiles, texts))
    assert page.count("<g data-tile=") == page.count("<li data-tile=") == 4
    assert "</script><b>" not in page and page.count("&lt;/script&gt;") == 4 * 3 - 0
    assert "http://" not in page and "https://" not in page and 'href="data:image/jpeg;base64,' in page
    assert "&lt;a&amp;b&gt;.tif" in page


def test_blocks_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 20_000, "height": 20_000, "count": 3, "dtype": "uint16"}
    layout = {"blockysize": 20_000, "interleave": "pixel", "sparse_ok": True, "compress": "deflate"}
    with rasterio.open(path, "w", **profile, **layout):
        pass
    with (
        pytest.raises(UnreadableImage, match=r"need 2\.4 GB of memory each; rewrite it with `gdal_translate"),
        open_scene(path, None),
    ):
        pass


MEASURE = """
import resource, sys
from pathlib import Path
from captioning.data.pictures import tiff
from captioning.runtime.resume import Results
from captioning.commands.scenes.captions import caption_tiles
from captioning.commands.scenes.maps import SceneMap, format_html
from captioning.commands.scenes.scene import cut_tiles, open_scene
tiff.CACHE_BYTES = 64 << 20
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_scene(Path("a.tif"), None) as scene:
    tiles = cut_tiles(scene.dataset.width, scene.dataset.height, 256)
    texts = caption_tiles(scene, tiles, 8, Results(Path("results")), lambda images: [("a", 0.0)] * len(images))
    page = format_html(SceneMap(scene, "mix-1", tiles, texts))
print(sum(text is not None for text in texts), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A scene of 537 MB needs less memory than it has, with a smaller cache of GDAL's than by default."""
    profile = {"driver": "GTiff", "width": 4096, "height": 4096, "count": 4, "dtype": "float64", "nodata": 0}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "lzw", "sparse_ok": True}
    values = np.broadcast_to(np.arange(1.0, 4097.0), (4, 256, 4096))
    with rasterio.open(tmp_path / "a.tif", "w", **profile, **layout, **UTM_33) as dataset:
        for row in range(0, 4096, 512):
            dataset.write(values, window=rasterio.windows.Window(0, row, 4096, 256))
    command = [sys.executable, "-W", "ignore", "-c", MEASURE]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    output = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    captioned, kilobytes = map(int, output.split())
    assert captioned == 128 and kilobytes < 420_000, output
