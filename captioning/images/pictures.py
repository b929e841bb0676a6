"""Pictures as people have them: the bytes of a file to an upright RGB image, or the reason why not.

One place, so that what a model is trained on and what it is asked about are read alike. An RGB JPEG or PNG comes out
as `paligemma.decode_image` sees it, pixel by pixel; for the rest:

1. EXIF's orientation is applied: a photograph stands as it was taken.
2. What is transparent is laid on white: alpha, a palette's or PNG's transparent colour.
3. More than 8 bits are scaled, not clipped as Pillow's `convert` does: by the range of the fewest bits that hold the
   brightest value, so that 11-bit satellite pictures in 16-bit files are not black; numbers with a sign or a fraction
   by their own range, no-number black. Pillow reads three bands of 16 bits by their upper bytes; the lower ones are
   read a second time (not of premultiplied alpha or of PNG's grey with alpha, which stay as Pillow reads them).
4. Of several pages or moving pictures the first is taken, and said so.
5. Grey, bilevel, palette, CMYK and YCbCr become RGB by Pillow's formulas; colour profiles are not applied.
6. A picture of more than `PIXELS` is refused before it is decoded, a truncated one is refused, never patched up. Only
   `FORMATS` are tried: some of Pillow's other readers run programs.
"""

import io
import sys
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile

FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP")
BESIDE = "MPO"  # what a JPEG of a telephone becomes that holds a depth map or a smaller picture beside its own
PIXELS = 178_956_970  # twice Pillow's warning, where it refuses, too
BYTE = 8  # bits
SIXTEEN = 16  # bits
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
OTHER_HALF = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}  # of each 16 bits
WHITE = (255, 255, 255)
OPAQUE = 255


class Unreadable(Exception):
    """Why bytes are no picture; a few words, no file name."""


@dataclass(frozen=True)
class Picture:
    """An RGB image, and what had to be decided to get it, in words."""

    image: Image.Image
    notes: tuple[str, ...] = ()


def read(data: bytes) -> Picture:
    """The picture in `data`. Raises `Unreadable`."""
    if not data:
        raise Unreadable("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a large picture and odd EXIF are no news here
            Image.init()  # else only some of FORMATS are known
            return _decoded(data)
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable("no JPEG, PNG, TIFF, WebP, GIF or BMP that can be read") from None
    except Image.DecompressionBombError:
        raise Unreadable(f"more than {PIXELS:,} pixels") from None
    except Exception as error:  # broken files raise a dozen kinds
        raise Unreadable(f"broken or truncated: {' '.join(str(error).split()) or type(error).__name__}") from None


def _decoded(data: bytes) -> Picture:
    notes = []
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > PIXELS:
            raise Unreadable(f"{image.width} × {image.height} pixels, more than {PIXELS:,}")
        if (pages := getattr(image, "n_frames", 1)) > 1 and image.format != BESIDE:
            notes.append(f"the first of {pages} {'pages' if image.format == 'TIFF' else 'frames'}")
        low = _lower_bytes(data, image)
        turned = image.getexif().get(ORIENTATION) in range(2, 9)  # of a PNG this loads it
        image.load()
        orientation = image.getexif().get(ORIENTATION, 1)  # Pillow turns a TIFF while it loads it, nothing else
        eight, scaled = _eight_bits(image, low)
        eight.getexif()[ORIENTATION] = orientation  # what went through an array has lost it
        flat, transparent = _opaque(ImageOps.exif_transpose(eight))
        notes += [scaled] if scaled else []
        notes += ["transparency laid on white"] if transparent else []
        notes += ["turned upright"] if turned else []
        return Picture(flat, tuple(notes))


def _lower_bytes(data: bytes, image: ImageFile) -> Num[np.ndarray, "height width bands"] | None:
    """The lower bytes of colour in 16 bits, of which `image` will hold the upper ones; None where there are none.

    Read with the other order of bytes, Pillow takes the lower byte for the upper.
    """
    if image.mode not in ("RGB", "RGBX", "RGBA") or not image.tile:
        return None
    swapped = [tile._replace(args=_swapped(tile.args)) for tile in image.tile]
    if any(tile.args is None for tile in swapped):
        return None
    with Image.open(io.BytesIO(data), formats=FORMATS) as again:
        again.tile = swapped
        again.load()
        return np.asarray(again)[..., :3]


def _swapped(args: Any) -> Any:
    raw, *rest = args if isinstance(args, tuple) else (args,)
    bands, _, order = str(raw).partition(";")
    if bands not in ("RGB", "RGBX", "RGBA") or order not in OTHER_HALF:
        return None
    mode = f"{bands};{OTHER_HALF[order]}"
    return (mode, *rest) if isinstance(args, tuple) else mode


def _eight_bits(
    image: Image.Image, low: Num[np.ndarray, "height width bands"] | None
) -> tuple[Image.Image, str | None]:
    """`image` with 8 bits a band, and how it was scaled, where it was."""
    if low is not None:
        pixels = np.asarray(image)
        colours, note = _scaled(pixels[..., :3].astype(np.uint16) << BYTE | low)
        if image.mode == "RGBA":
            return Image.fromarray(np.concatenate([colours, pixels[..., 3:]], axis=-1), "RGBA"), note
        return Image.fromarray(colours), note
    if image.mode.startswith(("I", "F")):
        grey, note = _scaled(np.asarray(image))
        return Image.fromarray(grey), note
    return image, None


def _scaled(values: Num[np.ndarray, "..."]) -> tuple[UInt8[np.ndarray, "..."], str]:
    """`values` from 0 to 255, and by which range."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = (finite.min().item(), finite.max().item()) if finite.size else (0, 0)
    if values.dtype.kind == "f" or low < 0:
        above = np.where(np.isfinite(values), values, low).astype(np.float64) - low
        return np.rint(255 * above / (high - low or 1)).astype(
            np.uint8
        ), f"values from {low:g} to {high:g} scaled to 8 bits"
    bits = max(BYTE, int(high).bit_length())
    note = f"{bits} bits scaled to {BYTE}"
    if bits > SIXTEEN:
        return np.rint(255 * (values / (2**bits - 1))).astype(np.uint8), note
    every = np.arange(2**bits, dtype=np.float64)  # looked up: three bands in floating point would fill the memory
    return np.rint(255 * every / (2**bits - 1)).astype(np.uint8)[values], note


def _opaque(image: Image.Image) -> tuple[Image.Image, bool]:
    """`image` as RGB on white, and whether anything shone through."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image.convert("RGB"), False
    layered = image.convert("RGBA")
    if np.asarray(layered)[..., 3].min() == OPAQUE:
        return layered.convert("RGB"), False
    ground = Image.new("RGBA", layered.size, WHITE)
    return Image.alpha_composite(ground, layered).convert("RGB"), True


def encode(image: Image.Image) -> bytes:
    """`image` as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
