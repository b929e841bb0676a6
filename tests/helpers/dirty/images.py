"""Images: `make` returns the bytes of `a.jpg`; beside it is a good image."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin
from rasterio.io import MemoryFile

from captioning.data.readers.rows import CONVERTED, MAX_IMAGE_BYTES
from tests.helpers.dirty import AS_IT_IS, REPAIRED, SET_ASIDE, Case

NO_IMAGE = "unreadable image: no JPEG, PNG, TIFF, WebP, GIF or BMP that can be read"
BROKEN = "unreadable image: broken or truncated: "
HOSTILE = "\x1b[2J<script>alert(1)</script>'; DROP TABLE images; -- $(reboot)"
MakeBytes = Callable[[], bytes]


def noise(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(1).randbytes(3 * size[0] * size[1])).convert(mode)


def encode(kind: str, mode: str = "RGB", size: tuple[int, int] = (24, 16), **options: Any) -> bytes:
    buffer = io.BytesIO()
    noise(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def two_pages(kind: str) -> bytes:
    return encode(kind, save_all=True, append_images=[noise().rotate(90)])


def half_file(kind: str) -> bytes:
    content = encode(kind)
    return content[: len(content) // 2]


def with_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode("JPEG", exif=exif)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, rows: bytes, *more: bytes) -> bytes:
    """Make an RGB PNG of 8 bits; `rows` need not fit its header."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def array_file(values: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def geotiff(values: np.ndarray, nodata: float | None = None) -> bytes:
    """Make a GeoTIFF of `values` (bands, height, width)."""
    bands, height, width = values.shape
    with MemoryFile() as memory:
        profile = {"width": width, "height": height, "count": bands, "dtype": values.dtype, "nodata": nodata}
        with memory.open(driver="GTiff", **profile) as dataset:
            dataset.write(values)
        return bytes(memory.read())


def deep_colours() -> bytes:
    """Make a PNG of 16 bits a channel."""
    rows = b"".join(b"\0" + np.arange(24, dtype=">u2").repeat(3).tobytes() for _ in range(16))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 16, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def transparent_png(mode: str) -> bytes:
    image = noise(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def hostile_comment() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", HOSTILE)
    info.add_itxt("XML:com.adobe.xmp", f"<x>{HOSTILE}</x>")
    return encode("PNG", pnginfo=info)


def wrong_checksum() -> bytes:
    content = encode("PNG")
    position = content.index(b"IDAT") + 10
    return content[:position] + bytes([content[position] ^ 255]) + content[position + 1 :]


ROWS = b"\0" * (3 * 24 + 1) * 16
BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * (80 << 20)))
GREY_11_BITS = np.full((16, 24), 2047, np.uint16)
COLOURS_16_BITS = np.arange(4 * 16 * 24, dtype=np.uint16).reshape(4, 16, 24)
BLANK = np.zeros((1, 16, 24), np.uint16)
FRACTIONS = np.array([[0.5, 2.0], [np.nan, 1.0]], np.float32)
SVG, HEIC = b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\0\0\0\x18ftypheic" + bytes(64)
ON_WHITE, FEWER_BITS = "transparency laid on white", "… bits scaled to …"
FRAMES, PAGES, UPRIGHT = "the first of … frames", "the first of … pages", "turned upright"
UNREADABLE: list[tuple[str, MakeBytes, str]] = [
    ("an empty file", bytes, "unreadable image: the file is empty"),
    ("1000 zero bytes", partial(bytes, 1000), NO_IMAGE),
    ("a JPEG cut in half", partial(half_file, "JPEG"), f"{BROKEN}Truncated File Read"),
    ("a PNG cut in half", partial(half_file, "PNG"), f"{BROKEN}image file is truncated"),
    ("a TIFF cut in half", partial(half_file, "TIFF"), BROKEN),
    ("a TIFF of nodata only", partial(geotiff, BLANK, nodata=0), "unreadable image: no pixel has data"),
    ("a TIFF of one value in 16 bits", partial(geotiff, BLANK), "unreadable image: every pixel has the value 0"),
    ("a GIF cut in half", partial(half_file, "GIF"), NO_IMAGE),
    ("a PNG with a changed byte", wrong_checksum, f"{BROKEN}"),
    ("a PNG of no width", partial(png, 0, 16, ROWS), NO_IMAGE),
    ("text", lambda: b"not an image\n", NO_IMAGE),
    ("a page that says 404", lambda: b"<!doctype html><title>404</title>", NO_IMAGE),
    ("an SVG", lambda: SVG, NO_IMAGE),
    ("PostScript, which a reader would give to Ghostscript", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", NO_IMAGE),
    ("a HEIC photograph", lambda: HEIC, NO_IMAGE),
    ("30,000 × 30,000 pixels", partial(png, 30_000, 30_000, ROWS), "unreadable image: more than 178,956,970 pixels"),
    ("a side of 2,147,483,647 pixels", partial(png, 2**31 - 1, 1, ROWS), "unreadable image: more than 178,956,970"),
    ("a comment of 80 MB, packed into 80 KB", partial(png, 24, 16, ROWS, BOMB), f"{BROKEN}Decompressed data too large"),
    ("a file of more than 64 MiB", partial(bytes, MAX_IMAGE_BYTES + 1), f"{MAX_IMAGE_BYTES + 1} bytes; an image has"),
]
CONVERTIBLE: list[tuple[str, MakeBytes, str]] = [
    ("a CMYK JPEG", partial(encode, "JPEG", "CMYK"), ""),
    ("a TIFF in Lab colours", partial(encode, "TIFF", "LAB"), ""),
    ("a grey JPEG", partial(encode, "JPEG", "L"), ""),
    ("a black and white PNG", partial(encode, "PNG", "1"), ""),
    ("a palette PNG", partial(encode, "PNG", "P"), ""),
    ("a palette PNG with a transparent colour", partial(encode, "PNG", "P", transparency=0), ON_WHITE),
    ("a PNG with alpha, all opaque", partial(encode, "PNG", "RGBA"), ""),
    ("a PNG with transparency", partial(transparent_png, "RGB"), ON_WHITE),
    ("a grey PNG with transparency", partial(transparent_png, "L"), ON_WHITE),
    ("grey in 16 bits, of which 11 are used", partial(array_file, GREY_11_BITS, "PNG"), FEWER_BITS),
    ("colours in 16 bits", deep_colours, FEWER_BITS),
    ("a TIFF of fractions and a NaN", partial(array_file, FRACTIONS, "TIFF"), "values from … to … stretched to … bits"),
    (
        "a TIFF of four bands in 16 bits",
        partial(geotiff, COLOURS_16_BITS),
        "bands …, …, … of … taken as red, green and blue",
    ),
    (
        "a TIFF with a border of 65535 that is not declared",
        partial(geotiff, np.where(COLOURS_16_BITS[:1] % 24 < 8, 65535, COLOURS_16_BITS[:1]).astype(np.uint16)),
        "… taken as nodata, far from all other values",
    ),
    ("an animated GIF", partial(two_pages, "GIF"), FRAMES),
    ("an animated WebP", partial(two_pages, "WEBP"), FRAMES),
    ("an animated PNG", partial(two_pages, "PNG"), FRAMES),
    ("a TIFF of two pages", partial(two_pages, "TIFF"), PAGES),
    ("a WebP", partial(encode, "WEBP"), ""),
    ("a BMP", partial(encode, "BMP"), ""),
    ("a TIFF called .jpg", partial(encode, "TIFF"), ""),
    ("a photograph on its side (EXIF)", partial(with_exif, 6), UPRIGHT),
    ("a mirrored photograph (EXIF)", partial(with_exif, 5), UPRIGHT),
    ("a telephone's JPEG with a second image in it", partial(two_pages, "MPO"), ""),
]
FINE: list[tuple[str, MakeBytes]] = [
    ("a PNG called .jpg", partial(encode, "PNG")),
    ("a progressive JPEG", partial(encode, "JPEG", progressive=True)),
    ("1 × 1 pixel", partial(encode, "PNG", size=(1, 1))),
    ("3000 × 1 pixels", partial(encode, "PNG", size=(3000, 1))),
    ("an orientation that does not exist (EXIF)", partial(with_exif, 99)),
    ("damaged EXIF", partial(encode, "JPEG", exif=b"Exif\0\0" + b"\xff" * 60)),
    ("a damaged colour profile", partial(encode, "JPEG", icc_profile=b"\xff" * 200)),
    ("a comment with commands for a terminal, a shell, a page", hostile_comment),
    ("an archive at the end of a JPEG", lambda: encode("JPEG") + b"PK\x03\x04" + bytes(100)),
    ("64 MB of zeros after 24 × 16 pixels", partial(png, 24, 16, ROWS + bytes(64 << 20))),
]
CASES = [
    *(Case(name, SET_ASIDE, message, make) for name, make, message in UNREADABLE),
    *(Case(name, REPAIRED, f"{CONVERTED}: {note}" if note else CONVERTED, make) for name, make, note in CONVERTIBLE),
    *(Case(name, AS_IT_IS, "", make) for name, make in FINE),
]
