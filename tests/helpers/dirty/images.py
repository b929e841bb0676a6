"""Images: `make` gives the bytes of `a.jpg`, which lies beside a good picture."""

import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from captioning.data.readers.rows import CONVERTED, MAX_IMAGE_BYTES
from tests.helpers.dirty import AS_IT_IS, REPAIRED, SET_ASIDE, Case

NO_PICTURE = "unreadable image: no JPEG, PNG, TIFF, WebP, GIF or BMP that can be read"
BROKEN = "unreadable image: broken or truncated: "
HOSTILE = "\x1b[2J<script>alert(1)</script>'; DROP TABLE images; -- $(reboot)"
Bytes = Callable[[], bytes]


def picture(mode: str = "RGB", size: tuple[int, int] = (24, 16)) -> Image.Image:
    return Image.frombytes("RGB", size, random.Random(1).randbytes(3 * size[0] * size[1])).convert(mode)


def saved(kind: str, mode: str = "RGB", size: tuple[int, int] = (24, 16), **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def pages(kind: str) -> bytes:
    return saved(kind, save_all=True, append_images=[picture().rotate(90)])


def cut(kind: str) -> bytes:
    content = saved(kind)
    return content[: len(content) // 2]


def with_exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved("JPEG", exif=exif)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG by hand, 8 bits RGB, of what its header says and what its data holds."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def array(values: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind)
    return buffer.getvalue()


def deep_colour() -> bytes:
    """16 bits a band."""
    rows = b"".join(b"\0" + np.arange(24, dtype=">u2").repeat(3).tobytes() for _ in range(16))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, 16, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def see_through(mode: str) -> bytes:
    image = picture(mode)
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def hostile_words() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", HOSTILE)
    info.add_itxt("XML:com.adobe.xmp", f"<x>{HOSTILE}</x>")
    return saved("PNG", pnginfo=info)


def wrong_checksum() -> bytes:
    content = saved("PNG")
    place = content.index(b"IDAT") + 10
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


ROWS = b"\0" * (3 * 24 + 1) * 16
BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * (80 << 20)))
TRUNCATED: list[tuple[str, Bytes, str]] = [
    ("an empty file", bytes, "unreadable image: the file is empty"),
    ("1000 zero bytes", partial(bytes, 1000), NO_PICTURE),
    ("a JPEG cut in half", partial(cut, "JPEG"), f"{BROKEN}Truncated File Read"),
    ("a PNG cut in half", partial(cut, "PNG"), f"{BROKEN}image file is truncated"),
    ("a TIFF cut in half", partial(cut, "TIFF"), BROKEN),
    ("a GIF cut in half", partial(cut, "GIF"), NO_PICTURE),
    ("a PNG with a changed byte", wrong_checksum, f"{BROKEN}"),
    ("a PNG of no width", partial(png, 0, 16, ROWS), NO_PICTURE),
    ("text", lambda: b"not an image\n", NO_PICTURE),
    ("a page that says 404", lambda: b"<!doctype html><title>404</title>", NO_PICTURE),
    ("an SVG", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_PICTURE),
    ("PostScript, which a reader would give to Ghostscript", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n", NO_PICTURE),
    ("a HEIC photograph", lambda: b"\0\0\0\x18ftypheic" + bytes(64), NO_PICTURE),
    ("30,000 × 30,000 pixels", partial(png, 30_000, 30_000, ROWS), "unreadable image: more than 178,956,970 pixels"),
    ("a side of 2,147,483,647 pixels", partial(png, 2**31 - 1, 1, ROWS), "unreadable image: more than 178,956,970"),
    ("a comment of 80 MB, packed into 80 KB", partial(png, 24, 16, ROWS, BOMB), f"{BROKEN}Decompressed data too large"),
    (
        "a file of more than 64 MiB",
        lambda: bytes(MAX_IMAGE_BYTES + 1),
        f"{MAX_IMAGE_BYTES + 1} bytes; an image has at most",
    ),
]
CHANGED: list[tuple[str, Bytes, str]] = [
    ("a CMYK JPEG", partial(saved, "JPEG", "CMYK"), ""),
    ("a TIFF in Lab colours", partial(saved, "TIFF", "LAB"), ""),
    ("a grey JPEG", partial(saved, "JPEG", "L"), ""),
    ("a black and white PNG", partial(saved, "PNG", "1"), ""),
    ("a palette PNG", partial(saved, "PNG", "P"), ""),
    ("a palette PNG with a transparent colour", partial(saved, "PNG", "P", transparency=0),
     "transparency laid on white"),
    ("a PNG with alpha that hides nothing", partial(saved, "PNG", "RGBA"), ""),
    ("a PNG one can see through", partial(see_through, "RGB"), "transparency laid on white"),
    ("a grey PNG one can see through", partial(see_through, "L"), "transparency laid on white"),
    ("grey in 16 bits, of which 11 are used", partial(array, np.full((16, 24), 2047, np.uint16), "PNG"),
     "… bits scaled to …"),
    ("colours in 16 bits", deep_colour, "… bits scaled to …"),
    ("a TIFF of fractions, one of them no number",
     partial(array, np.array([[0.5, 2.0], [np.nan, 1.0]], np.float32), "TIFF"), "values from … to … scaled to … bits"),
    ("an animated GIF", partial(pages, "GIF"), "the first of … frames"),
    ("an animated WebP", partial(pages, "WEBP"), "the first of … frames"),
    ("an animated PNG", partial(pages, "PNG"), "the first of … frames"),
    ("a TIFF of two pages", partial(pages, "TIFF"), "the first of … pages"),
    ("a WebP", partial(saved, "WEBP"), ""),
    ("a BMP", partial(saved, "BMP"), ""),
    ("a TIFF called .jpg", partial(saved, "TIFF"), ""),
    ("a photograph on its side (EXIF)", partial(with_exif, 6), "turned upright"),
    ("a photograph in a mirror (EXIF)", partial(with_exif, 5), "turned upright"),
    ("a telephone's JPEG with a second picture in it", partial(pages, "MPO"), ""),
]  # fmt: skip
FINE: list[tuple[str, Bytes]] = [
    ("a PNG called .jpg", partial(saved, "PNG")),
    ("a progressive JPEG", partial(saved, "JPEG", progressive=True)),
    ("1 × 1 pixel", partial(saved, "PNG", size=(1, 1))),
    ("3000 × 1 pixels", partial(saved, "PNG", size=(3000, 1))),
    ("an orientation that does not exist (EXIF)", partial(with_exif, 99)),
    ("EXIF that is no EXIF", partial(saved, "JPEG", exif=b"Exif\0\0" + b"\xff" * 60)),
    ("a colour profile that is none", partial(saved, "JPEG", icc_profile=b"\xff" * 200)),
    ("a comment with commands for a terminal, a shell, a page", hostile_words),
    ("an archive glued to a JPEG", lambda: saved("JPEG") + b"PK\x03\x04" + bytes(100)),
    ("64 MB of zeros behind 24 × 16 pixels", partial(png, 24, 16, ROWS + bytes(64 << 20))),
]
CASES = [
    *(Case(name, SET_ASIDE, told, make) for name, make, told in TRUNCATED),
    *(Case(name, REPAIRED, f"{CONVERTED}: {note}" if note else CONVERTED, make) for name, make, note in CHANGED),
    *(Case(name, AS_IT_IS, "", make) for name, make in FINE),
]
