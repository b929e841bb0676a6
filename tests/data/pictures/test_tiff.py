"""TIFFs of all kinds, written by rasterio or Pillow, against values that numpy computes."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from captioning.data.pictures.read import read_image
from captioning.images import decoded
from captioning.images.decoded import UnreadableImage
from tests.helpers.tiffs import GAPS, draw, pixels, stretch, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
RED, GREEN, BLUE = ColorInterp.red, ColorInterp.green, ColorInterp.blue


def encode(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", **options)
    return buffer.getvalue()


LAYOUTS = [
    {},
    {"tiled": True, "blockxsize": 16, "blockysize": 16},
    {"compress": "lzw", "predictor": 2},
    {"compress": "deflate", "interleave": "band"},
    {"compress": "zstd", "tiled": True, "blockxsize": 16, "blockysize": 16},
    {"bigtiff": "yes"},
    {"endianness": "big"},
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_and_compression_change_no_pixel(layout: dict[str, Any]) -> None:
    bytes_, deep = draw("uint8", 3, 0, 256), draw("uint16", 4, 100, 3000)
    assert np.array_equal(pixels(write(bytes_, photometric="RGB", **layout)), np.moveaxis(bytes_, 0, -1))
    assert np.array_equal(pixels(write(deep, **layout)), stretch(deep[:3]))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBX"])
def test_8_bits_are_what_pillow_reads(mode: str, compression: str | None) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (33, 41, 3), dtype=np.uint8))
    if compression == "jpeg" and mode in "P1":
        pytest.skip("JPEG holds neither a palette nor single bits")
    data = encode(noise.convert(mode), **({"compression": compression} if compression else {}))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels(data), np.asarray(image.convert("RGB")))
    assert read_image(data).notes == (("bands 1, 2, 3 of 4, by their colours",) if mode == "RGBX" else ())


def test_jpeg_in_ycbcr_is_what_pillow_reads_up_to_rounding() -> None:
    """GDAL's libjpeg and Pillow's libjpeg-turbo round differently where colours have half the resolution."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8))
    smooth = np.moveaxis(np.asarray(coarse.resize((80, 64), Image.Resampling.BICUBIC)), -1, 0)
    data = write(smooth, compress="jpeg", photometric="ycbcr", tiled=True, blockxsize=16, blockysize=16)
    with Image.open(io.BytesIO(data)) as image:
        difference = np.abs(pixels(data).astype(int) - np.asarray(image.convert("RGB")))
    assert difference.mean() < 1 and difference.max() < 8


@pytest.mark.parametrize(
    "dtype", ["uint16", "int16", "uint32", "int32", "float32", "float64", "int8", "int64", "uint64"]
)
@pytest.mark.parametrize("bands", [1, 3, 4, 7])
def test_any_depth_is_stretched_between_percentiles(dtype: str, bands: int) -> None:
    values = draw(dtype, bands, 3 if dtype.startswith("u") else -100, 120)
    decoded_image = read_image(write(values))
    expected = stretch(values[:3] if bands > 2 else values[:1])
    assert np.array_equal(np.asarray(decoded_image.image), np.broadcast_to(expected, (40, 50, 3)))
    assert decoded_image.notes[-1].startswith("values from ") and decoded_image.notes[-1].endswith(
        " stretched to 8 bits"
    )
    assert decoded_image.notes[:-1] == (
        (f"bands 1, 2, 3 of {bands} taken as red, green and blue",) if bands > 2 else ()
    )


def test_complex_values_give_their_magnitude() -> None:
    values = (draw("float32", 1, 1, 9) * np.exp(1j)).astype(np.complex64)
    assert np.abs(pixels(write(values))[..., :1].astype(int) - stretch(np.abs(values))).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_mask_is_not_in_the_range(dtype: str) -> None:
    values, mask = draw(dtype, 3, 10, 200), np.zeros((40, 50), bool)
    mask[:10] = True
    values[:, ~mask] = np.iinfo(dtype).max
    expected = np.moveaxis(values * mask, 0, -1) if dtype == "uint8" else stretch(values, mask)
    data = write(values, mask=mask, photometric="RGB")
    assert np.array_equal(pixels(data), expected) and GAPS in read_image(data).notes


def test_a_mask_beside_the_file_is_read_by_its_path(tmp_path: Path) -> None:
    values, mask, path = draw("uint16", 1, 10, 200), np.ones((40, 50), bool), tmp_path / "beside.tif"
    mask[:, :25] = False
    values[:, ~mask] = 60_000
    profile: dict[str, Any] = {"driver": "GTiff", "width": 50, "height": 40, "count": 1, "dtype": "uint16"}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values)
        dataset.write_mask(mask)
    assert (tmp_path / "beside.tif.msk").is_file()
    assert np.array_equal(pixels(path)[..., :1], stretch(values, mask))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_picture_without_a_valid_pixel_is_refused(dtype: str) -> None:
    with pytest.raises(UnreadableImage, match="no pixel has data"):
        read_image(write(np.full((3, 8, 8), 7, dtype), nodata=7))
    with pytest.raises(UnreadableImage, match="no pixel has data"):
        read_image(write(np.full((1, 8, 8), 7, dtype), mask=np.zeros((8, 8), bool)))
    with pytest.raises(UnreadableImage, match="no pixel has data"):
        read_image(encode(Image.new("RGBA", (8, 8), (1, 2, 3, 0))))
    with pytest.raises(UnreadableImage, match="no pixel has data"):
        read_image(write(np.full((1, 8, 8), np.nan, np.float32)))


def test_bands_are_found_by_their_colours() -> None:
    values = draw("uint16", 5, 100, 3000)
    data = write(values, colours=[ColorInterp.coastal, BLUE, GREEN, RED, ColorInterp.nir])
    assert np.array_equal(pixels(data), stretch(values[[3, 2, 1]]))
    assert read_image(data).notes[0] == "bands 4, 3, 2 of 5, by their colours"


def test_bands_are_chosen() -> None:
    values = draw("uint16", 5, 100, 3000)
    assert np.array_equal(pixels(write(values), (5, 3, 2)), stretch(values[[4, 2, 1]]))
    assert np.array_equal(pixels(write(values), (5,)), stretch(values[[4]]).repeat(3, axis=-1))
    assert read_image(write(values), (5, 3, 2)).notes[0] == "bands 5, 3, 2 of 5"
    with pytest.raises(UnreadableImage, match=r"no band 6, it has 5; choose others with --bands or data\.bands"):
        read_image(write(values), (6, 3, 2))


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_near_infrared_is_no_transparency(dtype: str) -> None:
    """Neither as an extra sample without a meaning, nor under the mark of alpha that GDAL gives 8 bits by default."""
    values = draw(dtype, 4, 5, 250)
    expected = np.moveaxis(values[:3], 0, -1) if dtype == "uint8" else stretch(values[:3])
    for options in (
        {},
        {"photometric": "RGB", "alpha": "unspecified"},
        {"colours": [RED, GREEN, BLUE, ColorInterp.nir]},
    ):
        assert np.array_equal(pixels(write(values, **options)), expected), options
    marked = write(values, colours=[RED, GREEN, BLUE, ColorInterp.alpha])
    assert np.array_equal(pixels(marked), expected)
    assert "band 4 is marked as alpha, but holds values; left out" in read_image(marked).notes
    assert np.array_equal(
        pixels(marked, (4, 2, 1)),
        np.moveaxis(values[[3, 1, 0]], 0, -1) if dtype == "uint8" else stretch(values[[3, 1, 0]]),
    )


def test_near_infrared_that_is_0_over_water_is_no_transparency() -> None:
    values = draw("uint8", 4, 5, 250)
    values[3, :30] = 0
    for options in ({}, {"photometric": "RGB"}, {"colours": [RED, GREEN, BLUE, ColorInterp.nir]}):
        assert np.array_equal(pixels(write(values, **options)), np.moveaxis(values[:3], 0, -1)), options
    assert "band 4 is marked as alpha, but holds values; left out" in read_image(write(values)).notes


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_that_pillow_writes_is_laid_on_white(mode: str) -> None:
    image = Image.new(mode, (50, 40), (9, 8, 7, 255)[-len(mode) :])
    image.putalpha(Image.fromarray(np.repeat([0, 255], 20)[:, None].repeat(50, axis=1).astype(np.uint8)))
    assert pixels(encode(image))[:20].min() == 255 and pixels(encode(image))[20:].max() < 10


@pytest.mark.parametrize("alpha", ["NON-PREMULTIPLIED", "PREMULTIPLIED"])
def test_alpha_is_laid_on_white(alpha: str) -> None:
    shares = np.repeat([0, 102, 255, 255], 10)[:, None].repeat(50, axis=1).astype(np.uint8)
    colours = draw("uint8", 3, 0, 256)
    stored = np.rint(colours * (shares / 255)).astype(np.uint8) if alpha == "PREMULTIPLIED" else colours
    data = write(np.concatenate([stored, shares[None]]), photometric="RGB", alpha=alpha)
    layer = np.moveaxis(colours, 0, -1) * (shares / 255)[..., None] + 255 - shares[..., None].astype(float)
    assert np.abs(pixels(data) - layer).max() <= 2
    assert read_image(data).notes == ("transparency laid on white",)


def test_alpha_of_16_bits_is_laid_on_white() -> None:
    values = draw("uint16", 4, 100, 3000)
    values[3] = 65535
    values[3, :5] = 0
    data = write(values, photometric="RGB", alpha="yes")
    assert pixels(data)[:5].min() == 255
    assert np.array_equal(pixels(data)[5:], stretch(values[:3, 5:]))


@pytest.mark.parametrize(("dtype", "opaque"), [("uint16", 1), ("uint16", 255), ("int16", 4095), ("float32", 255)])
def test_a_mask_of_two_values_is_alpha(dtype: str, opaque: int) -> None:
    """Programs write a mask of 0 and 1, or of 8 bits, as alpha of 16."""
    values = draw(dtype, 4, 10, 200)
    values[3] = opaque
    values[3, :5] = 0
    data = write(values, photometric="RGB", alpha="yes")
    assert pixels(data)[:5].min() == 255
    assert np.array_equal(pixels(data)[5:], stretch(values[:3, 5:]))
    assert read_image(data).notes[0] == f"band 4 of 0 and {opaque} taken as a mask"


def test_a_fourth_band_of_labels_is_no_mask() -> None:
    """GDAL marks the fourth band of 8 bits as alpha by default."""
    values = draw("uint8", 4, 5, 250)
    values[3] = 0
    values[3, :5] = 1
    assert np.array_equal(pixels(write(values)), np.moveaxis(values[:3], 0, -1))
    assert "band 4 is marked as alpha, but holds values; left out" in read_image(write(values)).notes


def test_a_palette_gives_its_colours() -> None:
    values = np.random.default_rng(2).integers(0, 4, (1, 9, 9), dtype=np.uint8)
    colours = {0: (255, 0, 0, 255), 1: (0, 128, 0, 255), 2: (7, 8, 9, 255), 3: (250, 251, 252, 255)}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", width=9, height=9, count=1, dtype="uint8", photometric="palette") as dataset:
            dataset.write(values)
            dataset.write_colormap(1, colours)
        data = memory.read()
    assert np.array_equal(pixels(data), np.array([colours[value][:3] for value in range(4)])[values[0]])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_fewer_bits_fill_the_range(bits: int) -> None:
    values = np.arange(16, dtype=np.uint8).reshape(1, 4, 4) % 2**bits
    assert np.array_equal(pixels(write(values, nbits=bits))[..., 0], np.rint(values[0] * (255 / (2**bits - 1))))


@pytest.mark.parametrize(("dtype", "bits"), [("uint8", 1), ("uint8", 8), ("uint16", 16)])
def test_0_can_be_white(dtype: str, bits: int) -> None:
    values = (draw("int64", 1, 0, 250) % 2**bits).astype(dtype)
    expected = stretch(values) if bits == 16 else np.rint(values[0] * (255 / (2**bits - 1)))[..., None]
    inverted = pixels(write(values, nbits=bits, photometric="miniswhite"))[..., :1].astype(int)
    assert np.abs(inverted - (255 - expected.astype(int))).max() <= 1


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    3: lambda a: a[::-1, ::-1],
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],
}


@pytest.mark.parametrize("orientation", TURNS)
def test_the_tag_of_orientation_is_applied(orientation: int) -> None:
    values = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    for image in (values, values[..., 0].astype(np.uint16)):
        upright = pixels(encode(Image.fromarray(image)))
        data = encode(Image.fromarray(image), tiffinfo={0x0112: orientation})
        assert np.array_equal(pixels(data), TURNS[orientation](upright))
        assert read_image(data).notes[-1] == "turned upright"


def test_the_first_page_is_used_and_a_preview_is_none(tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    assert read_image(encode(red, save_all=True, append_images=[blue])).notes == ("the first of 2 pages",)
    path = tmp_path / "overviews.tif"
    path.write_bytes(write(draw("uint8", 3, 0, 256), photometric="RGB"))
    with rasterio.open(path, "r+") as dataset:
        dataset.build_overviews([2, 4])
    assert read_image(path).notes == read_image(path.read_bytes()).notes == ()


def test_a_broken_file_gets_a_reason_without_a_random_name(monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(draw("uint16", 3, 0, 9))
    for length in (5, 60, len(data) // 2):
        reasons = set()
        for _ in range(2):
            with pytest.raises(UnreadableImage) as failure:
                read_image(data[:length])
            reasons.add(str(failure.value))
        (reason,) = reasons
        assert reason.startswith("broken or truncated: ") and "vsimem" not in reason
    monkeypatch.setattr(decoded, "MAX_PIXELS", 63)
    with pytest.raises(UnreadableImage, match="50 × 40 pixels, more than 63"):
        read_image(data)


def test_only_tiff_is_given_to_gdal() -> None:
    with pytest.raises(UnreadableImage):
        read_image(b"II*\0<VRTDataset rasterXSize='1' rasterYSize='1'/>")
    with pytest.raises(UnreadableImage, match="no JPEG, PNG, TIFF"):
        read_image(b"<VRTDataset rasterXSize='1' rasterYSize='1'/>")
