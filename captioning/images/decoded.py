"""Hold a decoded image, and take the last steps that all formats share: upright, and laid on white."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # that Pillow reads; GDAL reads TIFF
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of either byte order; + is BigTIFF's
MAX_PIXELS = 178_956_970  # Pillow's own limit
ORIENTATION = 0x0112  # tag of EXIF and of TIFF; 1 is upright
OPAQUE = 255
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


class UnreadableImage(Exception):
    """The reason why a file is not an image, in a few words without the file's name."""


@dataclass(frozen=True)
class DecodedImage:
    """An RGB image, and a note for each decision that reading it took."""

    image: Image.Image
    notes: tuple[str, ...] = ()
    is_plain: bool = False  # True for an upright RGB JPEG or PNG of 8 bits, whose bytes can stay as they are


def require_size(width: int, height: int) -> None:
    """Raise `UnreadableImage` if the image has more than `MAX_PIXELS`."""
    if width * height > MAX_PIXELS:
        raise UnreadableImage(f"{width} × {height} pixels, more than {MAX_PIXELS:,}; --tiles captions a scene")


def encode_png(image: Image.Image) -> bytes:
    """Return `image` as a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def finish(image: Image.Image, orientation: int) -> tuple[Image.Image, tuple[str, ...]]:
    """Return `image` upright, as RGB on white, and the notes about it."""
    image.getexif()[ORIENTATION] = orientation  # an image that was made from an array has none
    flat, is_transparent = _lay_on_white(ImageOps.exif_transpose(image))
    notes = (
        "transparency laid on white" if is_transparent else "",
        "turned upright" if orientation in range(2, 9) else "",
    )
    return flat, tuple(filter(None, notes))


def _lay_on_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """Return `image` as RGB on white, and whether any of it was transparent."""
    if image.mode not in ALPHA_MODES and "transparency" not in image.info:
        return image.convert("RGB"), False
    layered = image.convert("RGBA")
    if np.asarray(layered)[..., 3].min() == OPAQUE:
        return layered.convert("RGB"), False
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB"), True
