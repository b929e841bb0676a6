"""Decide which differences between rows are real: intervals and pairwise tests of corpus CIDEr over images and seeds.

With fixed document frequencies, corpus CIDEr is the mean of the images' scores. So a resample of images (Efron 1979)
needs no second scoring: its corpus score is a weighted mean.

Sources: percentile bootstrap, Efron and Tibshirani 1993, ch. 13; max-T, Westfall and Young 1993, and Romano and Wolf
2005; Welch 1947; compact letters, Piepho 2004. Deliberate differences:

1. All rows use the same resamples, because their captions are of the same images.
2. Max-T has one step, without the step-down of Romano and Wolf. This is a little cautious, but every pair gets the
   interval that its verdict is based on.
3. The noise of images does not measure the noise between training runs. If a row has several seeds, its pairs differ
   only if a test over the seeds' corpus scores rejects as well, each pair alone: Welch's t test, or Student's against
   the constant score of a row without training. With one seed, the verdict is about these captions, not the recipe.
4. With several seeds, the mean over seeds of each image's score is resampled.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from string import ascii_letters

import numpy as np
from jaxtyping import Float

from captioning.metrics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means

MIN_DEVIATION = 1e-9  # CIDEr times 100; a smaller deviation over resamples is rounding


@dataclass(frozen=True)
class Difference:
    """`first` minus `second` in points of CIDEr, with intervals of this pair alone and of all pairs together."""

    first: str
    second: str
    difference: float
    low: float  # percentile interval of the pair alone
    high: float
    family_low: float  # holds for all pairs together; contains 0 if image noise explains the difference
    family_high: float
    seeds_p: float | None  # of the test over seeds; None if neither row has several
    differs: bool

    @property
    def swapped(self) -> "Difference":
        """`second` minus `first`."""
        bounds = (-self.high, -self.low, -self.family_high, -self.family_low)
        return Difference(self.second, self.first, -self.difference, *bounds, self.seeds_p, self.differs)

    def rounded(self, digits: int) -> "Difference":
        """The same pair with its numbers rounded."""
        alone = (round(self.difference, digits), round(self.low, digits), round(self.high, digits))
        family = (round(self.family_low, digits), round(self.family_high, digits))
        p = None if self.seeds_p is None else round(self.seeds_p, digits)
        return Difference(self.first, self.second, *alone, *family, p, self.differs)


def find_difference(differences: Iterable[Difference], first: str, second: str) -> Difference | None:
    """Return `first` minus `second`; None if the two are not compared."""
    for difference in differences:
        if {difference.first, difference.second} == {first, second}:
            return difference if difference.first == first else difference.swapped
    return None


@dataclass(frozen=True)
class Comparison:
    """The interval of each row, the difference of each pair, and letters: rows that share a letter do not differ."""

    intervals: dict[str, tuple[float, float]]
    differences: Sequence[Difference]
    letters: Mapping[str, str]


def compare_rows(
    rows: Mapping[str, Float[np.ndarray, "seeds images"]], seed: int, resamples: int = RESAMPLES, level: float = LEVEL
) -> Comparison:
    """Compare rows by their scores of the same images against the same references; a row may have several seeds."""
    means = np.stack([scores.mean(axis=0) for scores in rows.values()])
    resampled = resampled_means(means, resamples, seed)
    tests = [seeds_p_value(first.mean(axis=1), second.mean(axis=1)) for first, second in combinations(rows.values(), 2)]
    pairs = list(combinations(range(len(rows)), 2))
    differences = _compare_pairs(list(rows), pairs, means.mean(axis=1), resampled, tests, level)
    order = sorted(rows, key=lambda row: -float(rows[row].mean()))  # stable: ties keep the order of the table
    differing = {frozenset((pair.first, pair.second)) for pair in differences if pair.differs}
    intervals = {row: interval(values, level) for row, values in zip(rows, resampled, strict=True)}
    return Comparison(intervals, differences, compact_letters(order, differing))


def compare_changes(
    before: Mapping[str, Float[np.ndarray, "seeds images"]],
    after: Mapping[str, Float[np.ndarray, "seeds images"]],
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> dict[str, Difference]:
    """Return of each row `after` minus `before`; the intervals of a family hold for all rows together.

    Both maps have the same rows, with scores of the same images against the same references.
    """
    rows = list(after)
    means = np.stack([scores[row].mean(axis=0) for scores in (after, before) for row in rows])
    tests = [seeds_p_value(after[row].mean(axis=1), before[row].mean(axis=1)) for row in rows]
    pairs = [(number, len(rows) + number) for number in range(len(rows))]
    resampled = resampled_means(means, resamples, seed)
    differences = _compare_pairs([*rows, *rows], pairs, means.mean(axis=1), resampled, tests, level)
    return dict(zip(rows, differences, strict=True))


def _compare_pairs(
    names: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    scores: Float[np.ndarray, " rows"],
    resampled: Float[np.ndarray, "rows resamples"],
    tests: Sequence[float | None],
    level: float,
) -> list[Difference]:
    largest, deviations = np.zeros(resampled.shape[1]), []  # max-T: the largest statistic of each resample
    for first, second in pairs:
        gaps = resampled[first] - resampled[second]
        deviations.append(max(float(gaps.std(ddof=1)), MIN_DEVIATION))
        np.maximum(largest, np.abs(gaps - (scores[first] - scores[second])) / deviations[-1], out=largest)
    critical = float(np.quantile(largest, level))
    differences = []
    for (first, second), deviation, p in zip(pairs, deviations, tests, strict=True):
        gap, margin = float(scores[first] - scores[second]), critical * deviation
        differs = abs(gap) > margin and (p is None or p < 1 - level)
        bounds = (*interval(resampled[first] - resampled[second], level), gap - margin, gap + margin)
        differences.append(Difference(names[first], names[second], gap, *bounds, p, bool(differs)))
    return differences


def seeds_p_value(first: Float[np.ndarray, " seeds"], second: Float[np.ndarray, " seeds"]) -> float | None:
    """Return the p-value of the difference between two rows' seeds; None if both rows have one run.

    Welch's t test. A single run against several is a row without training, and so a constant. Without a
    deviation: 1 if both are equal, otherwise 0.
    """
    if max(len(first), len(second)) == 1:
        return None
    if np.ptp(first) == np.ptp(second) == 0:  # a t test is undefined without a deviation
        return float(first[0] == second[0])
    from scipy import stats  # takes seconds, and most runs have one seed

    if min(len(first), len(second)) > 1:
        return float(stats.ttest_ind(first, second, equal_var=False).pvalue)
    several, single = (first, second) if len(first) > 1 else (second, first)
    return float(stats.ttest_1samp(several, single[0]).pvalue)


def compact_letters(order: Sequence[str], differing: Collection[frozenset[str]]) -> dict[str, str]:
    """Return letters by insertion and absorption: two rows share a letter exactly if they are not in `differing`.

    `order`: rows from the highest score, which get the letters from "a" on.
    """
    columns = [frozenset(order)]
    for pair in map(frozenset, combinations(order, 2)):
        if pair in differing:
            split = [column - {row} for column in columns if pair <= column for row in sorted(pair, key=order.index)]
            columns = list(dict.fromkeys([column for column in columns if not pair <= column] + split))
            columns = [column for column in columns if not any(column < other for other in columns)]
    columns.sort(key=lambda column: sorted(map(order.index, column)))
    names = [*ascii_letters, *(f"({number})" for number in range(len(ascii_letters), len(columns)))]
    return {row: "".join(names[n] for n, column in enumerate(columns) if row in column) for row in order}
