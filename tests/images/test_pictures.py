"""What each kind of picture comes to, against values worked out with numpy or written down by hand."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioning.images import pictures
from captioning.images.pictures import PIXELS, Unreadable, encode, read

ORDERS = {"<": b"II*\0", ">": b"MM\0*"}  # of TIFF's bytes


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: np.ndarray, order: str = "<", deflate: bool = False, extra: int | None = None) -> bytes:
    """A TIFF of 16 bits a band by its specification, one strip; Pillow writes none in colour."""
    height, width, bands = values.shape
    strip = values.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if deflate else strip
    tags = {256: width, 257: height, 259: 8 if deflate else 1, 262: 2, 277: bands, 278: height, 279: len(strip)}
    tags |= {} if extra is None else {338: extra}
    beyond = 8 + 2 + 12 * (len(tags) + 2) + 4  # where what no entry can hold begins
    entries = [struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items()]
    entries.append(struct.pack(f"{order}HHII", 258, 3, bands, beyond))
    entries.append(struct.pack(f"{order}HHII", 273, 4, 1, beyond + 2 * bands))
    entries.sort(key=lambda entry: struct.unpack(f"{order}H", entry[:2]))
    head = ORDERS[order] + struct.pack(f"{order}IH", 8, len(entries))
    return b"".join([head, *entries, bytes(4), struct.pack(f"{order}{bands}H", *[16] * bands), strip])


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A PNG of three bands by its specification."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def gradient(brightest: int, bands: int = 3) -> np.ndarray:
    values = np.linspace(0, brightest, 6 * 7 * bands).round().astype(np.uint16)
    return values.reshape(6, 7, bands)


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 80}), ("TIFF", {}), ("BMP", {})])
def test_a_plain_picture_is_what_training_sees(noise: Image.Image, kind: str, options: dict[str, Any]) -> None:
    from captioning.paligemma.model import decode_image

    data = saved(noise, kind, **options)
    picture = read(data)
    assert picture.notes == ()
    assert picture.image.mode == "RGB"
    assert picture.image.tobytes() == decode_image(data).tobytes() == decode_image(encode(picture.image)).tobytes()


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # from EXIF 2.32: what row 0 and column 0 of the file show
    1: lambda a: a,  # top, left
    2: lambda a: a[:, ::-1],  # top, right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.swapaxes(0, 1),  # left, top
    6: lambda a: a.swapaxes(0, 1)[:, ::-1],  # right, top
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],  # right, bottom
    8: lambda a: a.swapaxes(0, 1)[::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_photograph_stands_upright(noise: Image.Image, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read(saved(noise, kind, exif=exif))
    assert np.array_equal(np.asarray(picture.image), TURNS[orientation](np.asarray(noise)))
    assert picture.notes == (() if orientation == 1 else ("turned upright",))


def test_grey_of_16_bits_is_turned_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    values = gradient(65535, 1)[..., 0]
    picture = read(saved(Image.fromarray(values), "TIFF", exif=exif))
    grey = np.rint(values * 255.0 / 65535).astype(np.uint8)
    assert np.array_equal(np.asarray(picture.image)[..., 0], TURNS[6](grey))


def test_an_orientation_that_there_is_not_changes_nothing(noise: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert read(saved(noise, "PNG", exif=exif)).image.tobytes() == noise.tobytes()


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_bilevel_are_repeated(noise: Image.Image, mode: str) -> None:
    grey = noise.convert(mode)
    bands = np.asarray(read(saved(grey, "PNG")).image)
    assert all(np.array_equal(bands[..., band], np.asarray(grey.convert("L"))) for band in range(3))


def test_palette_is_looked_up(noise: Image.Image) -> None:
    indexed = noise.quantize(16)
    expected = np.array(indexed.getpalette()).reshape(-1, 3)[np.asarray(indexed)]
    assert np.array_equal(np.asarray(read(saved(indexed, "PNG")).image), expected)


def test_cmyk_by_its_formula() -> None:
    inks = Image.new("CMYK", (4, 4), (255, 0, 0, 51))  # cyan and a fifth of black
    for kind, tolerance in (("TIFF", 0), ("JPEG", 2)):
        image = read(saved(inks, kind)).image
        assert np.abs(np.asarray(image, dtype=int)[0, 0] - [0, 204, 204]).max() <= tolerance


def test_transparency_is_laid_on_white(noise: Image.Image) -> None:
    clear = noise.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(noise.size))
    picture = read(saved(clear, "PNG"))
    colours, alpha = np.asarray(clear)[..., :3].astype(float), np.asarray(clear)[..., 3:] / 255.0
    expected = colours * alpha + 255 * (1 - alpha)
    assert np.abs(np.asarray(picture.image) - expected).max() <= 1
    assert picture.notes == ("transparency laid on white",)


def test_an_alpha_that_hides_nothing_is_no_news(noise: Image.Image) -> None:
    picture = read(saved(noise.convert("RGBA"), "PNG"))
    assert (picture.notes, picture.image.tobytes()) == ((), noise.tobytes())


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_white(mode: str) -> None:
    image = Image.new(mode, (3, 3), 0)
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9])
    key = (0, 0, 0) if mode == "RGB" else 0
    picture = read(saved(image, "PNG", transparency=key))
    assert picture.image.getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("brightest", "bits"), [(65535, 16), (2047, 11), (1500, 11), (4096, 13), (200, 8)])
def test_grey_of_16_bits_is_scaled_not_clipped(kind: str, brightest: int, bits: int) -> None:
    values = gradient(brightest, 1)[..., 0]
    picture = read(saved(Image.fromarray(values), kind))
    expected = np.rint(values * 255.0 / (2**bits - 1)).astype(np.uint8)
    assert np.array_equal(np.asarray(picture.image), np.repeat(expected[..., None], 3, axis=-1))
    assert picture.notes == (f"{bits} bits scaled to 8",)
    assert brightest < 256 or len(np.unique(expected)) > 40


@pytest.mark.parametrize("make", [png_of_16_bits, tiff, lambda v: tiff(v, ">"), lambda v: tiff(v, "<", True)])
@pytest.mark.parametrize(("brightest", "bits"), [(65535, 16), (1500, 11)])
def test_colour_of_16_bits_keeps_its_lower_bytes(make: Any, brightest: int, bits: int) -> None:
    values = gradient(brightest)
    picture = read(make(values))
    assert np.array_equal(np.asarray(picture.image), np.rint(values * 255.0 / (2**bits - 1)).astype(np.uint8))
    assert picture.notes == (f"{bits} bits scaled to 8",)


def test_a_fourth_band_that_is_no_alpha_is_left_out() -> None:
    """Near infrared, say: of four bands whose last is not said to be alpha, the first three are the picture."""
    colours = gradient(65535)
    picture = read(tiff(np.concatenate([colours, np.zeros_like(colours[..., :1])], axis=-1), extra=0))
    assert np.array_equal(np.asarray(picture.image), np.rint(colours * 255.0 / 65535).astype(np.uint8))


def test_an_alpha_of_16_bits_is_laid_on_white() -> None:
    colours = gradient(65535)
    picture = read(tiff(np.concatenate([colours, np.zeros_like(colours[..., :1])], axis=-1), extra=2))
    assert np.asarray(picture.image).min() == 255
    assert "transparency laid on white" in picture.notes


def test_fractions_and_signs_by_their_own_range() -> None:
    values = np.array([[-1.0, 0.0], [1.0, np.nan]], dtype=np.float32)
    picture = read(saved(Image.fromarray(values), "TIFF"))
    assert np.asarray(picture.image)[..., 0].tolist() == [[0, 128], [255, 0]]
    assert picture.notes == ("values from -1 to 1 scaled to 8 bits",)
    signed = read(saved(Image.fromarray(np.array([[-100, 0], [50, 100]], dtype=np.int32)), "TIFF"))
    assert np.asarray(signed.image)[..., 0].tolist() == [[0, 128], [191, 255]]


def test_a_picture_of_one_value_is_black_where_it_has_no_range() -> None:
    assert np.asarray(read(saved(Image.new("F", (2, 2), 7.5), "TIFF")).image).max() == 0


@pytest.mark.parametrize(
    ("kind", "what"), [("TIFF", "pages"), ("GIF", "frames"), ("PNG", "frames"), ("WEBP", "frames")]
)
def test_the_first_of_several(kind: str, what: str) -> None:
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if kind == "WEBP" else {}
    picture = read(saved(red, kind, save_all=True, append_images=[blue, red], **options))
    assert picture.image.getpixel((0, 0)) == (255, 0, 0)
    assert picture.notes == (f"the first of 3 {what}",)


def test_what_a_telephone_lays_beside_a_picture_is_no_page(noise: Image.Image) -> None:
    data = saved(noise, "MPO", save_all=True, append_images=[noise.resize((4, 4))])
    assert data.startswith(b"\xff\xd8")
    picture = read(data)
    assert (picture.image.size, picture.notes) == (noise.size, ())


def test_too_many_pixels_are_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
    with pytest.raises(Unreadable, match=f"more than {PIXELS:,} pixels"):
        read(bomb)
    monkeypatch.setattr(pictures, "PIXELS", 63)
    with pytest.raises(Unreadable, match="8 × 8 pixels, more than 63"):
        read(saved(Image.new("L", (8, 8)), "PNG"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_a_truncated_picture_is_refused(noise: Image.Image, kind: str) -> None:
    data = saved(noise.resize((200, 200)), kind)
    with pytest.raises(Unreadable, match=r"broken or truncated|no JPEG"):
        read(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"no picture at all", "no JPEG, PNG, TIFF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no JPEG, PNG, TIFF"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "no JPEG, PNG, TIFF|broken"),
    ],
)
def test_what_is_no_picture_says_so(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read(data)


def test_random_damage_never_raises_another_kind(noise: Image.Image) -> None:
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP"):
        whole = np.frombuffer(saved(noise, kind), dtype=np.uint8)
        for _ in range(40):
            damaged = whole.copy()
            places = rng.integers(0, len(damaged), 8)
            damaged[places] = rng.integers(0, 256, 8)
            try:
                assert read(damaged.tobytes()).image.mode == "RGB"
            except Unreadable as reason:
                assert str(reason) and "\n" not in str(reason)


def test_more_than_16_bits_are_scaled_too() -> None:
    values = np.array([[0, 2**19], [1000, 2**20 - 1]], dtype=np.int32)
    picture = read(saved(Image.fromarray(values), "TIFF"))
    assert np.asarray(picture.image)[..., 0].tolist() == [[0, 128], [0, 255]]
    assert picture.notes == ("20 bits scaled to 8",)
