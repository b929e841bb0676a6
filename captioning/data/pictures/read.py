"""Decode people's image files to upright RGB images of 8 bits.

Training and captioning both read images here, so that they see the same pixels. An RGB JPEG or PNG gives exactly what
`paligemma.decode_image` gives. GDAL reads TIFF (data/pictures/tiff.py), Pillow all other formats:

1. EXIF orientation is applied.
2. Transparency (alpha, or the transparent colour of a palette or a PNG) is laid on white.
3. More than 8 bits are scaled by the fewest bits that hold the brightest value, since Pillow's `convert` clips them. Of
   16-bit colour Pillow keeps only the upper bytes, so the lower ones are read separately.
4. Of several frames, the first is used.
5. Grey, bilevel, palette, CMYK and YCbCr become RGB by Pillow's formulas; colour profiles are not applied.
6. An image of more than `MAX_PIXELS` is refused before it is decoded, and a truncated one is not repaired. Only
   `FORMATS` are tried, since some of Pillow's other readers run programs.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from captioning.images.decoded import (
    FORMATS,
    MAX_PIXELS,
    ORIENTATION,
    TIFF_STARTS,
    DecodedImage,
    UnreadableImage,
    finish,
    require_size,
)

PUBLISHED = ("JPEG", "PNG")  # formats whose bytes can stay
MPO = "MPO"  # Pillow's format of a telephone's JPEG with a depth map or preview in it, which is not a second page
SWAPPED_ORDERS = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}  # of a PNG's 16-bit colour


def read_image(source: bytes | Path, bands: tuple[int, ...] | None = None) -> DecodedImage:
    """Decode an image file, a TIFF by `bands`. Raises `UnreadableImage`, or `OSError` if a path cannot be read."""
    start = _read_start(source) if isinstance(source, Path) else source[:4]
    if not start:
        raise UnreadableImage("the file is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images, odd EXIF and missing coordinates
            if start in TIFF_STARTS:
                from captioning.data.pictures.tiff import read_tiff  # takes half a second, and few images need it

                return read_tiff(source, bands)
            Image.init()  # else only some of FORMATS are registered
            return _decode(source.read_bytes() if isinstance(source, Path) else source)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage("no JPEG, PNG, TIFF, WebP, GIF or BMP that can be read") from None
    except Image.DecompressionBombError:
        raise UnreadableImage(f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # broken files raise a dozen kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreadableImage(f"broken or truncated: {reason}") from None


def _read_start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


def _decode(data: bytes) -> DecodedImage:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        require_size(image.width, image.height)
        frames = 1 if image.format == MPO else getattr(image, "n_frames", 1)
        is_plain = image.mode == "RGB" and image.format in PUBLISHED and "transparency" not in image.info
        lower_bytes = _read_lower_bytes(data, image)
        image.load()
        scaled, scaling = _scale_to_8_bits(image, lower_bytes)
        flat, notes = finish(scaled, image.getexif().get(ORIENTATION, 1))
        notes = tuple(filter(None, (f"the first of {frames} frames" if frames > 1 else "", scaling, *notes)))
        return DecodedImage(flat, notes, is_plain and not notes)


def _read_lower_bytes(data: bytes, image: ImageFile) -> Num[np.ndarray, "height width bands"] | None:
    """Return the lower bytes of a PNG's 16-bit colour, of which `image` will hold the upper ones; else None.

    Pillow keeps the first byte of each two in the file's order, so with the order swapped it keeps the lower one.
    """
    orders = [SWAPPED_ORDERS.get(str(tile.args)) for tile in image.tile]
    if not orders or None in orders:
        return None
    with Image.open(io.BytesIO(data), formats=FORMATS) as swapped:
        swapped.tile = [tile._replace(args=order) for tile, order in zip(image.tile, orders, strict=True)]
        swapped.load()
        return np.asarray(swapped)[..., :3]


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
    if image.mode.startswith("I"):
        grey, note = _scale_values(np.asarray(image))
        return Image.fromarray(grey), note
    return image, ""


def _scale_values(values: Num[np.ndarray, "..."]) -> tuple[UInt8[np.ndarray, "..."], str]:
    """Scale `values` of at most 16 bits to 0 to 255, and name the range that was scaled."""
    bits = max(8, int(values.max()).bit_length())
    levels = np.arange(2**bits, dtype=np.float64)  # a look-up, since three bands in float64 would fill the memory
    return np.rint(255 * levels / (2**bits - 1)).astype(np.uint8)[values], f"{bits} bits scaled to 8"
