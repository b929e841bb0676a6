"""Resamples of images and their percentile intervals (Efron and Tibshirani 1993, ch. 13)."""

import numpy as np
from jaxtyping import Float

RESAMPLES = 10_000
LEVEL = 0.95
MAX_DRAWS = 2_000_000  # image numbers held at a time: 16 MB, as much again for their counts


def resampled_means(
    scores: Float[np.ndarray, "rows images"], resamples: int = RESAMPLES, seed: int = 0
) -> Float[np.ndarray, "rows resamples"]:
    """Each row's mean over images drawn with replacement, as many as there are; every row meets the same draws.

    Raises `ValueError` without an image.
    """
    images = np.shape(scores)[1]
    if not images:
        raise ValueError("no image to resample; scores has no column")
    draw, some = np.random.default_rng(seed), max(1, MAX_DRAWS // images)
    means = [_means(scores, draw, min(some, resamples - begin)) for begin in range(0, resamples, some)]
    return np.concatenate(means, axis=1)


def _means(scores: Float[np.ndarray, "rows images"], draw: np.random.Generator, resamples: int) -> np.ndarray:
    """`resamples` of `resampled_means`: how often each image was drawn, times its score."""
    images = scores.shape[1]
    drawn = draw.integers(images, size=(resamples, images)) + images * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * images).reshape(resamples, images)
    return scores @ counts.T.astype(np.float64) / images


def interval(resampled: Float[np.ndarray, " resamples"], level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval: the middle `level` of the resamples."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
