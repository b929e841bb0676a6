"""Nodata, declared or not, and pictures of one value: what is stretched, made black or refused."""

import numpy as np
import pytest

from captioning.data.pictures.read import read_image
from captioning.images.decoded import UnreadableImage
from tests.helpers.tiffs import GAPS, draw, pixels, stretch, write

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [
        ("float32", -3.4028234663852886e38),
        ("float64", -9999),
        ("int16", -32768),
        ("uint16", 65535),
        ("float32", np.nan),
    ],
)
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_nodata_is_not_in_the_range(dtype: str, nodata: float, bands: int) -> None:
    values, valid = draw(dtype, bands, 10, 900), np.ones((40, 50), bool)
    valid[:, 20:] = False
    values[:, ~valid] = nodata
    data = write(values, nodata=nodata)
    expected = stretch(values[:3] if bands > 2 else values[:1], valid)
    assert np.array_equal(pixels(data), np.broadcast_to(expected, (40, 50, 3)))
    assert GAPS in read_image(data).notes and pixels(data)[:, 20:].max() == 0


def test_marks_of_missing_fractions_need_no_declaration() -> None:
    values = draw("float32", 1, 0, 1)
    values[0, :4] = np.array([np.nan, np.inf, -3.4e38, 9.96921e36])[:, None]  # the last is NetCDF's
    valid = np.ones((40, 50), bool)
    valid[:4] = False
    assert np.array_equal(pixels(write(values))[..., :1], stretch(values, valid))


MARKS = [("float32", -9999), ("float64", -32768), ("float32", 65535), ("int16", -9999), ("int16", -32768)]
MARKS += [("int16", 32767), ("uint16", 65535), ("int32", -9999), ("int32", -(2**31)), ("uint32", 2**32 - 1)]
MARKS += [("int64", -(2**63)), ("uint64", 2**64 - 1)]
MARKS += [("int16", -32767), ("int16", 32766), ("uint16", 30_000), ("int32", 99_999), ("float32", -99_999)]
MARKS += [("float64", 1e20), ("float64", -1e20)]


@pytest.mark.parametrize(("dtype", "mark"), MARKS)
@pytest.mark.parametrize("bands", [1, 4])
def test_a_mark_far_from_all_values_is_nodata(dtype: str, mark: float, bands: int) -> None:
    values, valid = draw(dtype, bands, 10, 9000), np.ones((40, 50), bool)
    valid[:, :20] = False
    values[:, ~valid] = mark
    image = read_image(write(values))
    expected = stretch(values[:3] if bands > 2 else values[:1], valid)
    assert np.array_equal(np.asarray(image.image), np.broadcast_to(expected, (40, 50, 3)))
    assert f"{mark:.12g} taken as nodata, far from all other values" in image.notes and GAPS in image.notes


def test_several_marks_are_nodata() -> None:
    values, valid = draw("int16", 1, 10, 9000), np.ones((40, 50), bool)
    valid[:10] = False
    values[:, :5], values[:, 5:10] = -9999, -32768
    assert np.array_equal(pixels(write(values))[..., :1], stretch(values, valid))
    values[:, :5], values[:, 5:10], values[0, 0, 0] = -9999, -9999, -32768
    valid[0, 0] = True
    assert np.array_equal(pixels(write(values))[..., :1], stretch(values, valid)), "a rare one hides no other"
    fractions, valid = draw("float32", 1, 0, 1), np.ones((40, 50), bool)
    valid[:10] = False
    fractions[:, :5], fractions[:, 5:10] = -999, 9999
    assert np.array_equal(pixels(write(fractions))[..., :1], stretch(fractions, valid))


def test_a_class_far_from_a_few_others_is_a_value() -> None:
    classes = draw("uint16", 1, 1, 10)
    classes[:, :4] = 99
    assert np.array_equal(pixels(write(classes))[..., :1], stretch(classes))
    valid = np.ones((40, 50), bool)
    valid[:4] = False
    classes[:, :4] = 65535
    assert np.array_equal(pixels(write(classes))[..., :1], stretch(classes, valid))


def test_a_mark_near_other_values_is_a_value() -> None:
    """White clouds, values of a signed type, and few pixels."""
    clouds = draw("uint16", 3, 100, 60_000)
    clouds[:, :10] = 65535
    clipped = draw("int16", 1, -30_000, 30_000)
    clipped[0, 0] = -32768
    below = draw("int16", 1, -12_000, 3000)
    below[0, 0] = -9999
    few = draw("uint16", 1, 100, 900)
    few[0, 0, :30] = 65535
    for values in (clouds, clipped, below, few):
        assert np.array_equal(pixels(write(values))[..., : len(values)], stretch(values))
        assert len(read_image(write(values)).notes) == 1 + (len(values) == 3)
    assert pixels(write(clouds))[:10].min() == 255


def test_0_and_two_values_are_no_marks() -> None:
    shadows = draw("uint16", 1, 2500, 3500)
    shadows[:, :10] = 0
    assert np.array_equal(pixels(write(shadows))[..., :1], stretch(shadows))
    outline = np.zeros((1, 8, 8), np.uint16)
    outline[:, 4:] = 65535
    assert pixels(write(outline))[..., 0].tolist() == [[0] * 8] * 4 + [[255] * 8] * 4
    for low, high, dtype in [(0, 1, "uint16"), (0, 1, "float32"), (-128, 127, "int8"), (3, 9, "int16")]:
        mask = np.where(outline == 0, low, high).astype(dtype)
        assert pixels(write(mask))[..., 0].tolist() == [[0] * 8] * 4 + [[255] * 8] * 4


def test_values_of_8_bits_have_no_marks() -> None:
    values = draw("uint8", 1, 100, 120)
    values[0, :10] = 255
    assert np.array_equal(pixels(write(values))[..., 0], values[0])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_a_picture_of_one_value_is_refused(dtype: str) -> None:
    blank = np.full((3, 8, 8), 900, dtype)
    with pytest.raises(UnreadableImage, match="every pixel has the value 900, so nothing can be seen"):
        read_image(write(blank))
    bordered = blank.copy()
    bordered[:, :4] = 7
    with pytest.raises(UnreadableImage, match="every pixel has the value 900"):
        read_image(write(bordered, nodata=7))
    with pytest.raises(UnreadableImage, match="every pixel has the value -9999"):
        read_image(write(np.full((1, 8, 8), -9999, "int16")))


@pytest.mark.parametrize(("value", "mark", "dtype"), [(900, 65535, "uint16"), (0, -9999, "float32")])
def test_a_picture_of_one_value_and_a_mark_is_refused(value: int, mark: int, dtype: str) -> None:
    values = np.full((3, 10, 10), value, dtype)
    values[:, :, :3] = mark
    with pytest.raises(UnreadableImage, match=f"every pixel has the value {value}, so nothing can be seen"):
        read_image(write(values))


def test_one_value_of_8_bits_keeps_its_colour() -> None:
    assert pixels(write(np.full((3, 8, 8), 90, np.uint8), photometric="RGB")).tolist() == [[[90] * 3] * 8] * 8


def test_rare_values_are_seen() -> None:
    rare = np.full((1, 20, 20), 900, np.uint16)
    rare[0, 0, 0] = 1000
    assert pixels(write(rare))[0, 0].tolist() == [255] * 3
