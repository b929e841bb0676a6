"""Write TIFFs with rasterio, and compute with NumPy which picture they give."""

from pathlib import Path
from typing import Any

import numpy as np
from rasterio.io import MemoryFile

from captioning.data.pictures.read import read_image

GAPS = "pixels without data made black"


def write(values: np.ndarray, mask: np.ndarray | None = None, colours: Any = None, **profile: Any) -> bytes:
    """Write `values` (bands, height, width) as a GeoTIFF."""
    bands, height, width = values.shape
    options: dict[str, Any] = {"width": width, "height": height, "count": bands, "dtype": values.dtype} | profile
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", **options) as dataset:
            if colours:
                dataset.colorinterp = colours
            dataset.write(values)
            if mask is not None:
                dataset.write_mask(mask)
        return bytes(memory.read())


def pixels(source: bytes | Path, bands: tuple[int, ...] | None = None) -> np.ndarray:
    return np.asarray(read_image(source, bands).image)


def draw(dtype: str, bands: int, low: float, high: float) -> np.ndarray:
    values = np.random.default_rng(1).uniform(low, high, (bands, 40, 50))
    return values.astype(dtype)


def stretch(values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
    """Stretch the values between the percentiles 2 and 98 of the valid ones to 8 bits, with bands last."""
    known = np.ones(values.shape, bool) if valid is None else np.broadcast_to(valid, values.shape)
    ordered = np.sort(values[known].astype(np.float64))
    low, high = (np.interp(share * (len(ordered) - 1), range(len(ordered)), ordered) for share in (0.02, 0.98))
    shares = np.clip((np.where(known, values, low).astype(np.float64) - low) / (high - low), 0, 1)
    shares[:, ~known.any(axis=0)] = 0
    return np.moveaxis(np.rint(255 * shares).astype(np.uint8), 0, -1)
