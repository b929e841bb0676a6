"""Pixels of every kind of image, against values that numpy computes or that are written by hand."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioning.data.pictures.read import read_image
from captioning.images import decoded
from captioning.images.decoded import MAX_PIXELS, UnreadableImage, encode_png
from captioning.paligemma.model import decode_image
from tests.helpers.dirty.images import chunk


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_16_bits(values: np.ndarray) -> bytes:
    """Write a PNG of three bands of 16 bits by its specification."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def gradient(brightest: int, bands: int = 3) -> np.ndarray:
    return np.linspace(0, brightest, 6 * 7 * bands).round().astype(np.uint16).reshape(6, 7, bands)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(read_image(data).image)


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 80}), ("BMP", {})])
def test_a_plain_image_is_what_training_sees(noise: Image.Image, kind: str, options: dict[str, Any]) -> None:
    data = encode(noise, kind, **options)
    decoded = read_image(data)
    assert (decoded.notes, decoded.image.mode) == ((), "RGB")
    assert decoded.image.tobytes() == decode_image(data).tobytes() == decode_image(encode_png(decoded.image)).tobytes()


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # from EXIF 2.32: where row 0 and column 0 of the file are
    1: lambda a: a,  # top, left
    2: lambda a: a[:, ::-1],  # top, right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.swapaxes(0, 1),  # left, top
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],  # right, top
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: lambda a: a.swapaxes(0, 1)[::-1],  # left, bottom
    77: lambda a: a,  # undefined
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_an_image_is_turned_upright(noise: Image.Image, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(noise, kind, exif=exif)
    assert np.array_equal(pixels(data), TURNS[orientation](np.asarray(noise)))
    assert read_image(data).notes == (("turned upright",) if orientation in range(2, 9) else ())
    if kind == "TIFF":  # of which data/pictures/test_tiff.py reads more than 8 bits
        return
    grey = gradient(65535, 1)[..., 0]
    expected = TURNS[orientation](np.rint(grey * 255.0 / 65535).astype(np.uint8))
    assert np.array_equal(pixels(encode(Image.fromarray(grey), kind, exif=exif))[..., 0], expected)


def test_grey_bilevel_and_palette_become_rgb(noise: Image.Image) -> None:
    for image in (noise.convert("1"), noise.convert("L"), noise.quantize(16)):
        assert np.array_equal(pixels(encode(image, "PNG")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(("kind", "tolerance"), [("TIFF", 0), ("JPEG", 2)])
def test_cmyk_is_converted_by_its_formula(kind: str, tolerance: int) -> None:
    inks = Image.new("CMYK", (4, 4), (255, 0, 0, 51))  # cyan and a fifth of black
    assert np.abs(pixels(encode(inks, kind)).astype(int)[0, 0] - [0, 204, 204]).max() <= tolerance


def test_transparency_is_laid_on_white(noise: Image.Image) -> None:
    transparent = noise.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(noise.size))
    decoded = read_image(encode(transparent, "PNG"))
    colours, alpha = np.asarray(transparent)[..., :3].astype(float), np.asarray(transparent)[..., 3:] / 255.0
    assert np.abs(np.asarray(decoded.image) - (colours * alpha + 255 * (1 - alpha))).max() <= 1
    assert decoded.notes == ("transparency laid on white",)
    opaque = read_image(encode(noise.convert("RGBA"), "PNG"))
    assert (opaque.notes, opaque.image.tobytes()) == ((), noise.tobytes())


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_becomes_white(mode: str) -> None:
    image = Image.new(mode, (3, 3), 0)
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9])
    assert pixels(encode(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)).min() == 255


@pytest.mark.parametrize(("brightest", "bits"), [(65535, 16), (2047, 11), (1500, 11), (4096, 13), (200, 8)])
def test_grey_of_16_bits_is_scaled_not_clipped(brightest: int, bits: int) -> None:
    values = gradient(brightest, 1)[..., 0]
    decoded = read_image(encode(Image.fromarray(values), "PNG"))
    expected = np.rint(values * 255.0 / (2**bits - 1)).astype(np.uint8)
    assert np.array_equal(np.asarray(decoded.image), np.repeat(expected[..., None], 3, axis=-1))
    assert decoded.notes == (f"{bits} bits scaled to 8",)


@pytest.mark.parametrize(("brightest", "bits"), [(65535, 16), (1500, 11)])
def test_colour_of_16_bits_keeps_its_lower_bytes(brightest: int, bits: int) -> None:
    values = gradient(brightest)
    decoded = read_image(png_16_bits(values))
    assert np.array_equal(np.asarray(decoded.image), np.rint(values * 255.0 / (2**bits - 1)).astype(np.uint8))
    assert decoded.notes == (f"{bits} bits scaled to 8",)


@pytest.mark.parametrize(
    ("kind", "unit"), [("TIFF", "pages"), ("GIF", "frames"), ("PNG", "frames"), ("WEBP", "frames")]
)
def test_the_first_page_is_used(kind: str, unit: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = read_image(encode(red, kind, save_all=True, append_images=[blue, red], **options))
    assert decoded.image.getpixel((0, 0)) == (255, 0, 0)
    assert decoded.notes == (f"the first of 3 {unit}",)


def test_a_preview_beside_a_jpeg_is_not_a_page(noise: Image.Image) -> None:
    data = encode(noise, "MPO", save_all=True, append_images=[noise.resize((4, 4))])
    assert data.startswith(b"\xff\xd8")
    decoded = read_image(data)
    assert (decoded.image.size, decoded.notes) == (noise.size, ())


def test_an_image_of_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    with pytest.raises(UnreadableImage, match=f"more than {MAX_PIXELS:,} pixels"):
        read_image(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))
    monkeypatch.setattr(decoded, "MAX_PIXELS", 63)
    with pytest.raises(UnreadableImage, match="8 × 8 pixels, more than 63"):
        read_image(encode(Image.new("L", (8, 8)), "PNG"))


def test_random_damage_raises_nothing_else(noise: Image.Image) -> None:
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP"):
        intact = np.frombuffer(encode(noise, kind), dtype=np.uint8)
        for _ in range(40):
            damaged = intact.copy()
            damaged[rng.integers(0, len(damaged), 8)] = rng.integers(0, 256, 8)
            try:
                assert read_image(damaged.tobytes()).image.mode == "RGB"
            except UnreadableImage as reason:
                assert str(reason) and "\n" not in str(reason)
