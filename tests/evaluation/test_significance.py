"""Intervals agree with scipy; verdicts keep their error rate and find real differences; letters are complete."""

from itertools import chain, combinations, product

import numpy as np
import pytest
from scipy import stats

from captioning.evaluation.significance import (
    compact_letters,
    compare_rows,
    interval,
    resampled_means,
    seeds_p_value,
)
from captioning.metrics import bootstrap


def _rows(*rows: np.ndarray) -> dict[str, np.ndarray]:
    """Rows r0, r1, ... of one seed each."""
    return {f"r{number}": row[None] for number, row in enumerate(rows)}


def test_resampled_means_equal_the_means_of_drawn_images_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.array([[1.0, 2.0, 4.0, 9.0], [0.0, 1.0, 0.0, 0.0]])
    drawn = np.random.default_rng(3).integers(4, size=(500, 4))
    expected = scores[:, drawn].mean(axis=2)
    np.testing.assert_allclose(resampled_means(scores, resamples=500, seed=3), expected, atol=1e-12)
    monkeypatch.setattr(bootstrap, "MAX_DRAWS", 70)
    np.testing.assert_allclose(resampled_means(scores, resamples=500, seed=3), expected, atol=1e-12)
    with pytest.raises(ValueError, match="no image"):
        resampled_means(np.empty((2, 0)))


def test_intervals_agree_with_scipy() -> None:
    rng = np.random.default_rng(5)
    first = rng.gamma(2, 50, size=200)
    second = first + rng.normal(4, 20, size=200)
    comparison = compare_rows(_rows(first, second), seed=1)
    peer = stats.bootstrap((second,), np.mean, n_resamples=20_000, method="percentile", rng=rng).confidence_interval
    np.testing.assert_allclose(comparison.intervals["r1"], peer, atol=0.06 * second.std() / 200**0.5)

    def mean_gap(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(a - b, axis=axis)

    options = {"n_resamples": 20_000, "method": "percentile", "rng": rng}
    paired = stats.bootstrap((first, second), mean_gap, paired=True, **options).confidence_interval
    pair = comparison.differences[0]
    np.testing.assert_allclose([pair.low, pair.high], paired, atol=0.06 * (first - second).std() / 200**0.5)
    assert pair.difference == pytest.approx(np.mean(first - second))


def test_intervals_cover_the_truth_at_their_level() -> None:
    rng = np.random.default_rng(8)
    scores = rng.gamma(2, 1, size=(400, 60))  # mean 2, as skewed as CIDEr
    bounds = np.array([interval(means) for means in resampled_means(scores, resamples=1000, seed=1)])
    share = np.mean((bounds[:, 0] <= 2) & (bounds[:, 1] >= 2))
    assert 0.90 <= share <= 0.98


def test_an_error_among_all_pairs_is_as_rare_as_the_level() -> None:
    """Six equal rows, fifteen pairs, 300 trials: without correction 30 to 40 % of the trials would have an error."""
    rng = np.random.default_rng(4)
    trials = rng.normal(size=(300, 1, 200)) + rng.normal(size=(300, 6, 200))
    corrected, uncorrected = [], []
    for scores in trials:
        pairs = compare_rows(_rows(*scores), seed=1, resamples=500).differences
        corrected.append(any(pair.differs for pair in pairs))
        uncorrected.append(any(pair.low > 0 or pair.high < 0 for pair in pairs))
    assert np.mean(corrected) <= 0.085  # 5 % and three standard errors
    assert np.mean(uncorrected) > 0.2


def test_equal_rows_never_differ_and_a_constant_lead_does() -> None:
    scores = np.random.default_rng(0).gamma(2, 50, size=100)
    comparison = compare_rows(_rows(scores, scores.copy(), scores + 1.0), seed=1, resamples=500)
    assert [pair.differs for pair in comparison.differences] == [False, True, True]
    assert comparison.letters == {"r2": "a", "r0": "b", "r1": "b"}


def test_pairing_finds_a_difference_smaller_than_the_rows_intervals() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(100, 40, size=300)
    comparison = compare_rows(_rows(first, first + rng.normal(5, 10, size=300)), seed=1)
    assert comparison.intervals["r0"][1] > comparison.intervals["r1"][0]
    assert comparison.differences[0].differs and comparison.differences[0].family_high < 0


@pytest.mark.parametrize(("lead", "differs"), [([5.0, 5.0, 5.0], True), ([60.0, -40.0, 25.0], False)])
def test_rows_with_seeds_differ_only_if_their_seeds_do(lead: list[float], differs: bool) -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(100, 5, size=2000) + np.array([[0.1], [-0.1], [0.0]])
    rows = {"r0": first, "r1": first + np.array(lead)[:, None]}
    pair = compare_rows(rows, seed=1, resamples=300).differences[0]
    assert pair.family_high < 0  # by images alone, the rows differ
    assert pair.differs is differs


def test_seeds_are_tested_as_in_scipy_and_a_row_without_training_is_a_constant() -> None:
    first, second = np.array([1.0, 2.0, 4.0]), np.array([3.0, 9.0, 5.0])
    assert seeds_p_value(first, second) == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
    # t = (7/3 - 1) / (sqrt(7/3) / sqrt(3)) with 2 degrees of freedom, from either side
    assert seeds_p_value(first, first[:1]) == pytest.approx(2 * stats.t.sf(4 / 7**0.5, 2))
    assert seeds_p_value(first[:1], first) == seeds_p_value(first, first[:1])
    assert seeds_p_value(first[:1], second[:1]) is None
    assert (seeds_p_value(np.ones(2), np.ones(2)), seeds_p_value(np.ones(2), np.zeros(2))) == (1.0, 0.0)


def test_letters_are_the_largest_sets_of_rows_without_a_difference() -> None:
    """All patterns of four rows, by enumeration."""
    rows = "pqrs"
    pairs = [frozenset(pair) for pair in combinations(rows, 2)]
    subsets = [set(subset) for size in range(1, 5) for subset in combinations(rows, size)]
    for flags in product((False, True), repeat=len(pairs)):
        differing = {pair for pair, flag in zip(pairs, flags, strict=True) if flag}
        alike = [subset for subset in subsets if not any(pair <= subset for pair in differing)]
        largest = [subset for subset in alike if not any(subset < other for other in alike)]
        letters = compact_letters(rows, differing)
        groups = [{row for row in rows if letter in letters[row]} for letter in set(chain(*letters.values()))]
        assert sorted(map(sorted, groups)) == sorted(map(sorted, largest))
        assert letters["p"][0] == "a"


def test_letters_continue_as_numbers_after_52() -> None:
    rows = [f"row {number}" for number in range(54)]
    letters = compact_letters(rows, {frozenset(pair) for pair in combinations(rows, 2)})
    assert (letters["row 0"], letters["row 51"], letters["row 53"]) == ("a", "Z", "(53)")
