"""Decode people's image files to upright RGB images of 8 bits.

Training and captioning both read images here, so that they see the same pixels. An RGB JPEG or PNG gives exactly what
`paligemma.decode_image` gives. For other images:

1. EXIF orientation is applied.
2. Transparency (alpha, or the transparent colour of a palette or a PNG) is laid on white.
3. More than 8 bits are scaled by the fewest bits that hold the brightest value, since Pillow's `convert` clips and
   leaves 11-bit satellite images in 16-bit files black. Signed and fractional values are scaled by their own range, and
   NaN becomes black. Of 16-bit colour Pillow keeps only the upper bytes, so the lower ones are read separately (except
   for premultiplied alpha and PNG's grey with alpha).
4. Of several pages or frames, the first is used.
5. Grey, bilevel, palette, CMYK and YCbCr become RGB by Pillow's formulas; colour profiles are not applied.
6. An image of more than `MAX_PIXELS` is refused before it is decoded, and a truncated one is not repaired. Only
   `FORMATS` are tried, since some of Pillow's other readers run programs.
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
MPO = "MPO"  # Pillow's format of a telephone's JPEG with a depth map or preview in it, which is not a second page
MAX_PIXELS = 178_956_970  # Pillow's own limit
ORIENTATION = 0x0112  # EXIF tag; 1 is upright
SWAPPED_ORDERS = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
OPAQUE = 255


class UnreadableImage(Exception):
    """The reason why bytes are not an image, in a few words without the file's name."""


@dataclass(frozen=True)
class DecodedImage:
    """An RGB image, and a note for each decision that reading it took."""

    image: Image.Image
    notes: tuple[str, ...] = ()


def read_image(data: bytes) -> DecodedImage:
    """Decode an image file. Raises `UnreadableImage`."""
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images and odd EXIF
            Image.init()  # else only some of FORMATS are registered
            return _decode(data)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage("no JPEG, PNG, TIFF, WebP, GIF or BMP that can be read") from None
    except Image.DecompressionBombError:
        raise UnreadableImage(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # broken files raise a dozen kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"broken or truncated: {reason}") from None


def encode_png(image: Image.Image) -> bytes:
    """Return `image` as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _decode(data: bytes) -> DecodedImage:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise UnreadableImage(f"{image.width} × {image.height} pixels, more than {MAX_PIXELS:,}")
        pages = 1 if image.format == MPO else getattr(image, "n_frames", 1)
        lower_bytes = _read_lower_bytes(data, image)
        is_turned = image.getexif().get(ORIENTATION) in range(2, 9)
        image.load()
        orientation = image.getexif().get(ORIENTATION, 1)  # asked again: Pillow turns a TIFF, only, while it loads it
        scaled, scaling = _scale_to_8_bits(image, lower_bytes)
        scaled.getexif()[ORIENTATION] = orientation  # an image that was made from an array has lost it
        flat, is_transparent = _lay_on_white(ImageOps.exif_transpose(scaled))
        notes = (
            f"the first of {pages} {'pages' if image.format == 'TIFF' else 'frames'}" if pages > 1 else "",
            scaling,
            "transparency laid on white" if is_transparent else "",
            "turned upright" if is_turned else "",
        )
        return DecodedImage(flat, tuple(filter(None, notes)))


def _read_lower_bytes(data: bytes, image: ImageFile) -> Num[np.ndarray, "height width bands"] | None:
    """Return the lower bytes of 16-bit colour, of which `image` will hold the upper ones; None for other images.

    Pillow keeps the first byte of each two in the file's order, so with the order swapped it keeps the lower one.
    """
    if image.mode not in ("RGB", "RGBX", "RGBA") or not image.tile:
        return None
    tiles = [tile._replace(args=_swap_byte_order(tile.args)) for tile in image.tile]
    if any(tile.args is None for tile in tiles):
        return None
    with Image.open(io.BytesIO(data), formats=FORMATS) as swapped:
        swapped.tile = tiles
        swapped.load()
        return np.asarray(swapped)[..., :3]


def _swap_byte_order(args: Any) -> Any:
    raw, *others = args if isinstance(args, tuple) else (args,)
    bands, _, order = str(raw).partition(";")
    if bands not in ("RGB", "RGBX", "RGBA") or order not in SWAPPED_ORDERS:
        return None
    mode = f"{bands};{SWAPPED_ORDERS[order]}"
    return (mode, *others) if isinstance(args, tuple) else mode


def _scale_to_8_bits(
    image: Image.Image, lower_bytes: Num[np.ndarray, "height width bands"] | None
) -> tuple[Image.Image, str]:
    """Return `image` with 8 bits a band, and how it was scaled ("" if it was not)."""
    if lower_bytes is not None:
        pixels = np.asarray(image)
        colours, note = _scale_values(pixels[..., :3].astype(np.uint16) << 8 | lower_bytes)
        if image.mode == "RGBA":
            return Image.fromarray(np.concatenate([colours, pixels[..., 3:]], axis=-1), "RGBA"), note
        return Image.fromarray(colours), note
    if image.mode.startswith(("I", "F")):
        grey, note = _scale_values(np.asarray(image))
        return Image.fromarray(grey), note
    return image, ""


def _scale_values(values: Num[np.ndarray, "..."]) -> tuple[UInt8[np.ndarray, "..."], str]:
    """Scale `values` to 0 to 255, and name the range that was scaled."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = (finite.min().item(), finite.max().item()) if finite.size else (0, 0)
    if values.dtype.kind == "f" or low < 0:
        above = np.where(np.isfinite(values), values, low).astype(np.float64) - low
        scaled = np.rint(255 * above / (high - low or 1)).astype(np.uint8)
        return scaled, f"values from {low:g} to {high:g} scaled to 8 bits"
    bits = max(8, int(high).bit_length())
    note = f"{bits} bits scaled to 8"
    if bits > 16:
        return np.rint(255 * (values / (2**bits - 1))).astype(np.uint8), note
    levels = np.arange(2**bits, dtype=np.float64)  # a look-up, since three bands in float64 would fill the memory
    return np.rint(255 * levels / (2**bits - 1)).astype(np.uint8)[values], note


def _lay_on_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return `image` as RGB on white, and whether any of it was transparent."""
    if image.mode not in ("RGBA", "LA", "PA", "RGBa", "La") and "transparency" not in image.info:
        return image.convert("RGB"), False
    layered = image.convert("RGBA")
    if np.asarray(layered)[..., 3].min() == OPAQUE:
        return layered.convert("RGB"), False
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB"), True
