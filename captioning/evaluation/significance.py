"""Which differences between rows are real: intervals and pairwise tests of corpus CIDEr over test images and seeds.

With fixed document frequencies corpus CIDEr is the mean of the images' scores, so a resample of images (Efron 1979)
needs no second scoring: its corpus score is a weighted mean.

Sources: percentile bootstrap, Efron and Tibshirani 1993, ch. 13; max-T, Westfall and Young 1993, and Romano and Wolf
2005; Welch 1947; compact letters, Piepho 2004. Deliberate differences:

1. All rows meet the same resamples, so that a difference between two rows is that of two captions of the same images.
2. Max-T in one step, without the step-down of Romano and Wolf: somewhat cautious, and every pair gets the interval that
   its verdict rests on.
3. Noise of images cannot speak for another training run. Where a row has several seeds, its pairs differ only if the
   seeds' corpus scores reject as well, each pair on its own: Welch's t test, or Student's against the constant score of
   a row that nothing was trained for. With one seed the verdict is about these captions, not about the recipe.
4. Of several seeds, the mean over seeds of each image's score is resampled.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from string import ascii_letters

import numpy as np
from jaxtyping import Float
from scipy import stats

from captioning.metrics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means

NO_DEVIATION = 1e-9  # CIDEr times 100; below it a difference is the same in every resample, but for rounding


@dataclass(frozen=True)
class Difference:
    """`first` less `second`, in points of CIDEr, with two intervals: of this pair alone, and of all pairs at once."""

    first: str
    second: str
    difference: float
    low: float  # percentile interval of the pair alone
    high: float
    family_low: float  # holds for all pairs together; without 0 where image noise does not explain the difference
    family_high: float
    seeds_p: float | None  # of the test over seeds; None where neither row has several
    differs: bool

    @property
    def turned(self) -> "Difference":
        """`second` less `first`."""
        return replace(
            self, first=self.second, second=self.first, difference=-self.difference, low=-self.high, high=-self.low,
            family_low=-self.family_high, family_high=-self.family_low,
        )  # fmt: skip


def between(differences: Iterable[Difference], first: str, second: str) -> Difference | None:
    """`first` less `second`, whichever way it was written down; None where the two are not compared."""
    for one in differences:
        if {one.first, one.second} == {first, second}:
            return one if one.first == first else one.turned
    return None


@dataclass(frozen=True)
class Comparison:
    """Interval of every row, every pair's difference, and letters: rows that share one do not differ."""

    intervals: Mapping[str, tuple[float, float]]
    differences: Sequence[Difference]
    letters: Mapping[str, str]


def compare(
    rows: Mapping[str, Float[np.ndarray, "seeds images"]], seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> Comparison:
    """Compare `rows`, the scores of the same images against the same references, each row with seeds of its own."""
    means = np.stack([of_row.mean(axis=0) for of_row in rows.values()])
    resampled = resampled_means(means, resamples, seed)
    found = _differences(list(rows), means.mean(axis=1), resampled, [of.mean(axis=1) for of in rows.values()], level)
    order = sorted(rows, key=lambda row: -float(rows[row].mean()))  # stable: ties stay in the order of the table
    apart = {frozenset((one.first, one.second)) for one in found if one.differs}
    intervals = {row: interval(of, level) for row, of in zip(rows, resampled, strict=True)}
    return Comparison(intervals, found, letters(order, apart))


def _differences(
    names: Sequence[str], scores: Float[np.ndarray, " rows"], resampled: Float[np.ndarray, "rows resamples"],
    seeds: Sequence[Float[np.ndarray, " seeds"]], level: float,
) -> list[Difference]:  # fmt: skip
    pairs = list(combinations(range(len(names)), 2))
    widest, deviations = np.zeros(resampled.shape[1]), []
    for first, second in pairs:
        moved = resampled[first] - resampled[second]
        deviations.append(max(float(moved.std(ddof=1)), NO_DEVIATION))
        np.maximum(widest, np.abs(moved - (scores[first] - scores[second])) / deviations[-1], out=widest)
    critical = float(np.quantile(widest, level))
    found = []
    for (first, second), deviation in zip(pairs, deviations, strict=True):
        difference, p = float(scores[first] - scores[second]), seeds_p(seeds[first], seeds[second])
        margin = critical * deviation
        differs = abs(difference) > margin and (p is None or p < 1 - level)
        alone = interval(resampled[first] - resampled[second], level)
        found.append(Difference(names[first], names[second], difference, *alone, difference - margin,
                                difference + margin, p, bool(differs)))  # fmt: skip
    return found


def seeds_p(first: Float[np.ndarray, " seeds"], second: Float[np.ndarray, " seeds"]) -> float | None:
    """How probable a difference as large as that of two rows' seeds is where there is none; None for two single runs.

    Welch's t test; a row of one run among rows of several was not trained, and is a constant. 1 where all are equal.
    """
    if max(len(first), len(second)) == 1:
        return None
    if np.ptp(first) == np.ptp(second) == 0:  # no deviation at all, which no t test knows how to weigh
        return float(first[0] == second[0])
    if min(len(first), len(second)) > 1:
        return float(stats.ttest_ind(first, second, equal_var=False).pvalue)
    several, single = (first, second) if len(first) > 1 else (second, first)
    return float(stats.ttest_1samp(several, single[0]).pvalue)


def letters(order: Sequence[str], apart: Collection[frozenset[str]]) -> dict[str, str]:
    """Compact letters by insertion and absorption: two rows share a letter just where they are not `apart`.

    `order`: rows from the highest score, which take the letters from "a" on; `apart`: pairs that differ.
    """
    columns = [frozenset(order)]
    for first, second in combinations(order, 2):
        if frozenset((first, second)) in apart:
            without = [column - {one} for column in columns for one in (first, second) if {first, second} <= column]
            kept = [column for column in columns if not {first, second} <= column]
            columns = _absorb(kept + without)
    place = {row: number for number, row in enumerate(order)}
    columns.sort(key=lambda column: sorted(place[row] for row in column))
    return {row: "".join(_letter(n) for n, column in enumerate(columns) if row in column) for row in order}


def _absorb(columns: Sequence[frozenset[str]]) -> list[frozenset[str]]:
    """Distinct columns that no other holds."""
    distinct = list(dict.fromkeys(columns))
    return [column for column in distinct if not any(column < other for other in distinct)]


def _letter(number: int) -> str:
    return ascii_letters[number] if number < len(ascii_letters) else f"({number})"
