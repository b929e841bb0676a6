"""Types, layouts and compressions of TIFF, all combined: the same picture as NumPy computes, upright."""

from itertools import product

import numpy as np
import pytest

from tests.helpers.tiffs import pixels, stretch, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
DTYPES = ["uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
STRIPES, TILES = {"blockysize": 8}, {"tiled": True, "blockxsize": 16, "blockysize": 16}


def slope(dtype: str, bands: int) -> np.ndarray:
    """Return values that grow to the right and the bottom, so that a turned picture differs."""
    columns, rows = np.meshgrid(np.arange(50), np.arange(40))
    return np.stack([2 * columns + 3 * rows + 5 * band for band in range(bands)]).astype(dtype)


def expected_pixels(values: np.ndarray) -> np.ndarray:
    taken = values[:3] if len(values) > 2 else values[:1]
    picture = np.moveaxis(taken, 0, -1) if values.dtype == np.uint8 else stretch(taken)
    return np.broadcast_to(picture, (40, 50, 3))


@pytest.mark.parametrize("compression", ["none", "deflate", "lzw", "packbits", "zstd"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_layout_is_read(dtype: str, compression: str) -> None:
    for bands, blocks, interleave in product([1, 2, 3, 4, 6], [STRIPES, TILES], ["pixel", "band"]):
        values = slope(dtype, bands)
        data = write(values, compress=compression, interleave=interleave, **blocks)
        assert np.array_equal(pixels(data), expected_pixels(values)), (bands, blocks, interleave)


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 6])
def test_jpeg_is_read_in_every_layout(bands: int) -> None:
    values = slope("uint8", bands)
    interleaves = ["pixel", "band"] if bands <= 4 else ["band"]  # JPEG has at most four colours
    for blocks, interleave in product([STRIPES, TILES], interleaves):
        data = write(values, compress="jpeg", jpeg_quality=95, interleave=interleave, **blocks)
        picture = pixels(data).astype(int)
        assert picture.shape == (40, 50, 3) and np.abs(picture - expected_pixels(values)).max() < 8
