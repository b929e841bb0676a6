"""Read TIFF with GDAL (rasterio) as RGB: any depth, layout and compression, whole or by windows.

1. The caller chooses the bands; else they are the file's palette, its red, green and blue, or the first three.
2. Pixels without data (by nodata, masks, NaN and infinity) take no part in the range of values, and become black.
   Many writers declare none, so above 8 bits a value far from all others is taken as nodata (marks.py).
3. Above 8 bits, the values between `PERCENTILES` are stretched to 0 to 255. One range serves all bands, since a range
   for each would turn a scene of sea or forest grey. Values of 8 bits stay as they are. A picture of one value
   above 8 bits is refused, since a stretch can give it any brightness.
4. Alpha is laid on white. Only a band that is marked as alpha can be alpha, and it is data if most of its pixels that
   can be seen are half transparent: GDAL marks the fourth band of 8 bits so by default, and it is often near infrared,
   which is 0 over water. Above 8 bits, where GDAL marks no band by default, the only value beside 0 is opaque:
   programs write a mask of 0 and 1, or of 0 and 255, so.
5. Of several pages, the first is used, turned by the tag of orientation.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import rasterio
from jaxtyping import Bool, Num, UInt8
from PIL import Image, TiffImagePlugin
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.windows import Window

from captioning.data.pictures.marks import PERCENTILES, find_marks
from captioning.images.decoded import OPAQUE, ORIENTATION, DecodedImage, UnreadableImage, finish, require_size

DRIVER = "GTiff"
GDAL_ERRORS = (RasterioError, CPLE_BaseError)  # the second has no public name
SAMPLE_SIDE = 1024  # pixels of the sample from which the range of values is computed
MAX_VALUE = 1e30  # beyond are marks of missing data, which many writers of fractions do not declare
CACHE_BYTES = 256 << 20  # of decoded blocks; GDAL's default is a share of the memory, and rasterio passes bytes
COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
BIG_TIFF = 43  # the third byte of such a file
EXTRA_SAMPLES, PREMULTIPLIED = 338, 1  # a tag with a number for each band beyond the colours, and that of such alpha

Bands = tuple[int, ...]  # one, grey, or three, red, green and blue; counted from 1


@dataclass(frozen=True)
class Tiff:
    """An open file, and tags of its first page that GDAL does not read."""

    dataset: DatasetReader
    orientation: int = 1
    is_premultiplied: bool = False  # colours by alpha


@dataclass(frozen=True)
class Rendering:
    """How the values of a TIFF become RGB."""

    bands: Bands
    alpha: int | None = None
    opaque: float = 255.0  # value of alpha that lets nothing through
    is_premultiplied: bool = False
    has_masks: bool = True
    palette: UInt8[np.ndarray, "values 3"] | None = None
    marks: tuple[float, ...] = ()  # values taken as nodata, though the file does not say so
    low: float = 0.0  # becomes 0
    high: float = 255.0  # becomes 255
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Values:
    """Values of the bands that make the image."""

    bands: Num[np.ndarray, "bands height width"]
    is_valid: Bool[np.ndarray, "bands height width"]
    alpha: UInt8[np.ndarray, "height width"] | None

    @property
    def has_data(self) -> Bool[np.ndarray, "height width"]:
        """Where at least one band is valid."""
        return np.logical_or.reduce(self.is_valid)


def read_tiff(source: bytes | Path, bands: Bands | None = None) -> DecodedImage:
    """Decode a TIFF, by a path with the masks and nodata beside it. Raises `UnreadableImage`."""
    with open_tiff(source) as tiff:
        require_size(tiff.dataset.width, tiff.dataset.height)
        rendering = plan_rendering(tiff, bands)
        values = read_values(tiff.dataset, rendering)
        pages = len(tiff.dataset.subdatasets)
    image, notes = finish(to_image(values, rendering), tiff.orientation)
    first = (f"the first of {pages} pages",) if pages > 1 else ()
    has_gaps = rendering.alpha is None and not values.has_data.all()
    gaps = ("pixels without data made black",) if has_gaps else ()
    return DecodedImage(image, (*first, *rendering.notes, *gaps, *notes))


@contextmanager
def open_tiff(source: bytes | Path) -> Iterator[Tiff]:
    """Open a TIFF, and nothing else that GDAL reads. Raises `UnreadableImage`, also for faults inside the block."""
    try:
        with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
            if isinstance(source, Path):
                with rasterio.open(source, driver=DRIVER) as dataset, source.open("rb") as file:
                    yield Tiff(dataset, *_read_tags(file))
            else:
                with MemoryFile(source) as memory, memory.open(driver=DRIVER) as dataset:
                    yield Tiff(dataset, *_read_tags(BytesIO(source)))
    except GDAL_ERRORS as error:
        reason = " ".join(str(error.__cause__ or error).split())
        reason = re.sub(r"^.*\.tiff?[:,] *", "", reason, flags=re.IGNORECASE)  # GDAL's name for the file
        raise UnreadableImage(f"broken or truncated: {reason or type(error).__name__}") from None


def plan_rendering(tiff: Tiff, bands: Bands | None) -> Rendering:
    """Choose bands, and the range of values from a sample. Raises `UnreadableImage` if it has no data or one value."""
    dataset = tiff.dataset
    rendering = replace(_choose_bands(dataset, bands), is_premultiplied=tiff.is_premultiplied)
    shape = min(dataset.height, SAMPLE_SIDE), min(dataset.width, SAMPLE_SIDE)
    if rendering.alpha is not None:
        rendering = _choose_opaque(rendering, dataset.read(rendering.alpha, out_shape=shape))
    sample = read_values(dataset, rendering, shape=shape)
    if sample.alpha is not None and not _is_transparency(sample.alpha):
        note = f"band {rendering.alpha} is marked as alpha, but holds values; left out"
        rendering = replace(rendering, alpha=None, has_masks=False, notes=(*rendering.notes, note))
        sample = read_values(dataset, rendering, shape=shape)
    if not sample.is_valid.any():
        raise UnreadableImage("no pixel has data; see its nodata value, mask and alpha")
    if marks := _find_marks(rendering, sample):
        note = f"{' and '.join(f'{mark:.12g}' for mark in marks)} taken as nodata, far from all other values"
        rendering = replace(rendering, marks=marks, notes=(*rendering.notes, note))
        sample = read_values(dataset, rendering, shape=shape)
    return _choose_range(dataset, rendering, sample)


def read_values(
    dataset: DatasetReader,
    rendering: Rendering,
    window: Window | None = None,
    shape: tuple[int, int] | None = None,
    resampling: Resampling = Resampling.nearest,
) -> Values:
    """Read the bands in `window` (None: all), resampled to `shape` (None: as they are)."""
    options: dict[str, Any] = {"window": window, "resampling": resampling}
    bands = list(rendering.bands)
    several = options | {"out_shape": shape and (len(bands), *shape)}
    values = dataset.read(bands, **several)
    if np.iscomplexobj(values):
        values = np.abs(values)
    is_valid = dataset.read_masks(bands, **several) > 0 if rendering.has_masks else np.ones(values.shape, bool)
    if values.dtype.kind == "f":
        is_valid &= np.abs(values) < MAX_VALUE  # False for NaN
    for mark in rendering.marks:
        is_valid &= values != mark
    if rendering.alpha is None:
        return Values(values, is_valid, None)
    alpha = _to_8_bits(dataset.read(rendering.alpha, **options, out_shape=shape), rendering.opaque)
    return Values(values, is_valid & (alpha > 0), alpha)  # GDAL's masks know alpha of unsigned numbers only


def to_image(values: Values, rendering: Rendering) -> Image.Image:
    """Return the values as RGB, or RGBA if there is alpha; pixels without data are black."""
    if rendering.palette is not None:
        colours = rendering.palette[np.clip(values.bands[0], 0, len(rendering.palette) - 1)]
    else:
        bands = [_scale(*band, rendering) for band in zip(values.bands, values.is_valid, strict=True)]
        colours = np.stack(bands if len(bands) == 3 else bands * 3, axis=-1)
    colours[~values.has_data] = 0
    if values.alpha is None:
        return Image.fromarray(colours)
    layered = np.dstack([colours, values.alpha])
    if rendering.is_premultiplied:
        return Image.frombytes("RGBa", (layered.shape[1], layered.shape[0]), layered.tobytes()).convert("RGBA")
    return Image.fromarray(layered)


def _choose_bands(dataset: DatasetReader, wanted: Bands | None) -> Rendering:
    colours, count = dataset.colorinterp, dataset.count
    alpha = colours.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in colours else None
    has_masks = any(MaskFlags.all_valid not in flags for flags in dataset.mask_flag_enums)
    if wanted:
        if max(wanted) > count:
            raise UnreadableImage(f"no band {max(wanted)}, it has {count}; choose others with --bands or data.bands")
        if alpha in wanted:
            alpha, has_masks = None, False
        return Rendering(wanted, alpha, has_masks=has_masks, notes=(f"{_name_bands(wanted)} of {count}",))
    if colours[0] == ColorInterp.palette and not _is_inverted(dataset):
        return Rendering((1,), alpha, has_masks=has_masks, palette=_read_palette(dataset))
    data = tuple(band for band in range(1, count + 1) if band != alpha) or (1,)
    bands, note = data[:1], f"band 1 of {count} taken" if len(data) == 2 else ""
    if {*COLOURS} <= {*colours}:
        bands = tuple(colours.index(colour) + 1 for colour in COLOURS)
        note = f"{_name_bands(bands)} of {count}, by their colours" if bands != data else ""
    elif len(data) >= 3:
        bands, note = data[:3], f"{_name_bands(data[:3])} of {count} taken as red, green and blue"
    return Rendering(bands, alpha, has_masks=has_masks, notes=(note,) if note else ())


def _name_bands(bands: Bands) -> str:
    return f"band{'s' if len(bands) > 1 else ''} {', '.join(map(str, bands))}"


def _is_inverted(dataset: DatasetReader) -> bool:
    """Return whether 0 is white; GDAL gives some of such files a palette, and inverts no value."""
    return bool(dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES")


def _read_palette(dataset: DatasetReader) -> UInt8[np.ndarray, "values 3"]:
    colours = dataset.colormap(1)
    palette = np.zeros((max(colours) + 1, 3), np.uint8)
    for value, colour in colours.items():
        palette[value] = colour[:3]
    return palette


def _choose_opaque(rendering: Rendering, alpha: Num[np.ndarray, "height width"]) -> Rendering:
    """Return `rendering` with the opaque value: the largest of the type or, above 8 bits, the only one beside 0."""
    opaque = float(np.iinfo(alpha.dtype).max if alpha.dtype.kind in "iu" else 1)
    values = np.unique(alpha[np.isfinite(alpha) & (alpha != 0)]).tolist()
    if alpha.dtype == np.uint8 or len(values) != 1 or values[0] == opaque or values[0] < 0:
        return replace(rendering, opaque=opaque)
    note = f"band {rendering.alpha} of 0 and {values[0]:g} taken as a mask"
    return replace(rendering, opaque=float(values[0]), notes=(*rendering.notes, note))


def _is_transparency(alpha: UInt8[np.ndarray, "height width"]) -> bool:
    """Return whether at least half of the pixels that are not wholly transparent are wholly opaque."""
    visible = alpha[alpha > 0]
    return not visible.size or bool((visible == OPAQUE).mean() >= 0.5)


def _find_marks(rendering: Rendering, sample: Values) -> tuple[float, ...]:
    """Return the values that are taken as nodata without being declared, lowest first."""
    has_marks = rendering.palette is None and sample.bands.dtype != np.uint8
    return find_marks(sample.bands[sample.is_valid]) if has_marks else ()


def _choose_range(dataset: DatasetReader, rendering: Rendering, sample: Values) -> Rendering:
    """Return `rendering` with the range of values that becomes 0 to 255."""
    if rendering.palette is not None:
        return rendering
    notes = rendering.notes
    if sample.bands.dtype == np.uint8:
        bits = dataset.tags(rendering.bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8)
        low, high = 0.0, 2.0 ** int(bits) - 1
    else:
        valid = sample.bands[sample.is_valid].astype(np.float64)
        low, high = np.percentile(valid, PERCENTILES).tolist()
        if low == high:  # of most pixels
            low, high = valid.min().item(), valid.max().item()
        if low == high:
            raise UnreadableImage(f"every pixel has the value {low:.6g}, so nothing can be seen")
        notes = (*notes, f"values from {low:.6g} to {high:.6g} stretched to 8 bits")
    if _is_inverted(dataset):
        low, high = high, low
    return replace(rendering, low=low, high=high, notes=notes)


def _scale(
    band: Num[np.ndarray, "height width"], is_valid: Bool[np.ndarray, "height width"], rendering: Rendering
) -> UInt8[np.ndarray, "height width"]:
    low, high = rendering.low, rendering.high
    if band.dtype == np.uint8 and (low, high) == (0, 255):
        return band
    shares = (np.where(is_valid, band, low).astype(np.float64) - low) / (high - low)
    return np.rint(255 * np.clip(shares, 0, 1)).astype(np.uint8)


def _to_8_bits(alpha: Num[np.ndarray, "height width"], opaque: float) -> UInt8[np.ndarray, "height width"]:
    if alpha.dtype == np.uint8 and opaque == OPAQUE:
        return alpha
    return np.rint(255 * np.clip(np.nan_to_num(alpha / opaque), 0, 1)).astype(np.uint8)


def _read_tags(file: BinaryIO) -> tuple[int, bool]:
    """Return orientation, and whether colours are multiplied by alpha; as usual if the tags are missing or damaged."""
    try:
        header = file.read(8)
        header += file.read(8) if header[2] == BIG_TIFF else b""
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
        extra_samples = tags.get(EXTRA_SAMPLES, ())
        return int(tags.get(ORIENTATION, 1)), PREMULTIPLIED in np.atleast_1d(extra_samples)
    except (SyntaxError, OSError, ValueError, TypeError, LookupError):
        return 1, False
