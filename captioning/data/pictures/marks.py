"""Find nodata that a file does not declare: a value that many pixels have, far below or above all others.

The lowest and the highest value are tested, and again without those found, so that several can be. Such a value is
taken as nodata if at least `MARK_SHARE` of the values have it, and the nearest other is as far as half of the range of
the others (between `PERCENTILES`). Bright pixels that reached the highest value have others just below, and stay white.

1. 0 is never taken, since water, shadows and borders have it.
2. `MARKS`, and the limits of an integer type, are taken whatever the others are; any other value only if the others
   have `MIN_DISTINCT` values, since a map of a few classes may have one far away.
3. A mask of 0 and a higher value, or of two values of rule 2, stays as it is.
"""

import numpy as np
from jaxtyping import Num

MARKS = (-9999, -32768, 65535)  # used by many writers, also in types that hold lower or higher values
MARK_SHARE = 0.02  # with fewer, the percentiles hardly change
PERCENTILES = (2, 98)
MIN_DISTINCT = 16
MAX_MARKS = 4


def find_marks(values: Num[np.ndarray, " values"]) -> tuple[float, ...]:
    """Return those of the valid `values` that mean nodata, lowest first."""
    marks: list[float] = []
    minimum_count = MARK_SHARE * values.size
    rare = [mark for mark in _known_marks(values.dtype) if 0 < (values == mark).sum() < minimum_count]
    values = values[~np.isin(values, rare)]  # since they would hide others
    while values.size and len(marks) < MAX_MARKS:
        extremes = (values.min().item(), values.max().item())
        distant = [mark for mark in extremes if mark and _is_far(mark, values, minimum_count)][:1]
        if not distant:
            break
        marks += distant
        values = values[values != distant[0]]
    return tuple(sorted(marks))


def _is_far(mark: float, values: Num[np.ndarray, " values"], minimum_count: float) -> bool:
    """Return whether `mark` is at least `minimum_count` of the values, and far from all others."""
    others = values[values != mark]
    if not others.size or values.size - others.size < minimum_count:
        return False
    low, high = np.percentile(others.astype(np.float64), PERCENTILES).tolist()
    distance = max(others.min().item() - mark, mark - others.max().item())
    if 2 * distance < high - low:
        return False
    known = _known_marks(values.dtype)
    if mark not in known:
        return np.unique(others).size >= MIN_DISTINCT and low < high
    return low < high or not (low in known or low == 0 < mark)


def _known_marks(dtype: np.dtype) -> set[float]:
    limits = {int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)} - {0} if dtype.kind in "iu" else set()
    return {*MARKS, *limits}
