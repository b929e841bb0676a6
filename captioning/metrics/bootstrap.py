"""Resample images and compute percentile intervals (Efron and Tibshirani 1993, ch. 13)."""

import numpy as np
from jaxtyping import Float

RESAMPLES = 10_000
LEVEL = 0.95
MAX_DRAWS = 2_000_000  # image numbers in memory at a time: 16 MB, and as much again for their counts


def resampled_means(
    scores: Float[np.ndarray, "rows images"], resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "rows resamples"]:
    """Return each row's mean over images drawn with replacement; all rows use the same draws."""
    images = np.shape(scores)[1]
    if not images:
        raise ValueError("no image to resample; scores has no column")
    generator, chunk = np.random.default_rng(seed), max(1, MAX_DRAWS // images)
    sizes = [min(chunk, resamples - begin) for begin in range(0, resamples, chunk)]
    return np.concatenate([_draw_means(scores, generator, size) for size in sizes], axis=1)


def _draw_means(scores: Float[np.ndarray, "rows images"], generator: np.random.Generator, size: int) -> np.ndarray:
    images = scores.shape[1]
    drawn = generator.integers(images, size=(size, images)) + images * np.arange(size)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=size * images).reshape(size, images)
    return scores @ counts.T.astype(np.float64) / images


def interval(resampled: Float[np.ndarray, " resamples"], level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval: the middle `level` of the resamples."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
