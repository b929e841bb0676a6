"""Intervals agree with scipy's; verdicts keep their error rate, find what is there and hold over seeds; letters by
hand and by enumeration."""

from itertools import chain, combinations, product

import numpy as np
import pytest
from scipy import stats

from captioning.evaluation.significance import compare, interval, letters, resampled_means, seeds_p
from captioning.metrics import bootstrap


def _rows(*rows: np.ndarray) -> dict[str, np.ndarray]:
    """Rows r0, r1, ... of one seed each."""
    return {f"r{number}": row[None] for number, row in enumerate(rows)}


def test_resamples_are_those_of_counts_by_hand() -> None:
    scores = np.array([[1.0, 2.0, 4.0, 9.0], [0.0, 1.0, 0.0, 0.0]])
    means = resampled_means(scores, resamples=500, seed=3)
    drawn = np.random.default_rng(3).integers(4, size=(500, 4))
    np.testing.assert_allclose(means, scores[:, drawn].mean(axis=2), atol=1e-12)


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.random.default_rng(0).normal(size=(2, 30))
    whole = resampled_means(scores, resamples=100, seed=1)
    monkeypatch.setattr(bootstrap, "DRAWS_AT_ONCE", 70)
    np.testing.assert_allclose(resampled_means(scores, resamples=100, seed=1), whole, atol=1e-12)
    with pytest.raises(ValueError, match="no image"):
        resampled_means(np.empty((2, 0)))


def test_intervals_agree_with_scipy() -> None:
    rng = np.random.default_rng(5)
    first = rng.gamma(2, 50, size=200)
    second = first + rng.normal(4, 20, size=200)
    found = compare(_rows(first, second), seed=1)
    peer = stats.bootstrap((second,), np.mean, n_resamples=20_000, method="percentile", rng=rng).confidence_interval
    np.testing.assert_allclose(found.intervals["r1"], peer, atol=0.06 * second.std() / 200**0.5)

    def lead(one: np.ndarray, other: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(one - other, axis=axis)

    options = {"n_resamples": 20_000, "method": "percentile", "rng": rng}
    paired = stats.bootstrap((first, second), lead, paired=True, **options).confidence_interval
    only = found.differences[0]
    np.testing.assert_allclose([only.low, only.high], paired, atol=0.06 * (first - second).std() / 200**0.5)
    assert only.difference == pytest.approx(np.mean(first - second))


def test_of_one_pair_all_at_once_is_the_pair_alone() -> None:
    """Max-T over one pair is |d* - d| / s, whose quantile is near the normal one with many images."""
    rng = np.random.default_rng(2)
    only = compare(_rows(*rng.normal(size=(2, 400))), seed=1).differences[0]
    standard_error = np.std(np.subtract(*rng.normal(size=(2, 400)))) / 20
    assert (only.family_high - only.family_low) / 2 == pytest.approx(1.96 * standard_error, rel=0.12)
    assert (only.family_high - only.family_low) == pytest.approx(only.high - only.low, rel=0.03)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(8)
    scores = rng.gamma(2, 1, size=(400, 60))  # mean 2, as skewed as CIDEr
    bounds = np.array([interval(of) for of in resampled_means(scores, resamples=1000, seed=1)])
    share = np.mean((bounds[:, 0] <= 2) & (bounds[:, 1] >= 2))
    assert 0.90 <= share <= 0.98


def test_one_error_among_all_pairs_is_as_rare_as_said() -> None:
    """Six equal rows, fifteen pairs, 300 worlds: without correction 30 to 40 % of the worlds would hold an error."""
    rng = np.random.default_rng(4)
    worlds = rng.normal(size=(300, 1, 200)) + rng.normal(size=(300, 6, 200))
    corrected, plain = [], []
    for world in worlds:
        found = compare(_rows(*world), seed=1, resamples=500).differences
        corrected.append(any(one.differs for one in found))
        plain.append(any(one.low > 0 or one.high < 0 for one in found))
    assert np.mean(corrected) <= 0.085  # 5 % and three standard errors
    assert np.mean(plain) > 0.2


def test_equal_rows_never_differ_and_a_constant_lead_does() -> None:
    scores = np.random.default_rng(0).gamma(2, 50, size=100)
    found = compare(_rows(scores, scores.copy(), scores + 1.0), seed=1, resamples=500)
    assert [one.differs for one in found.differences] == [False, True, True]
    assert found.letters == {"r2": "a", "r0": "b", "r1": "b"}


def test_a_clear_difference_is_found_and_its_pairing_matters() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(100, 40, size=300)
    second = first + rng.normal(5, 10, size=300)  # far smaller than the rows' own intervals
    found = compare(_rows(first, second), seed=1)
    assert found.intervals["r0"][1] > found.intervals["r1"][0]  # they overlap
    assert found.differences[0].differs and found.differences[0].family_high < 0


@pytest.mark.parametrize(("lead", "differs"), [([5.0, 5.0, 5.0], True), ([60.0, -40.0, 25.0], False)])
def test_image_noise_alone_cannot_speak_for_training_runs(lead: list[float], differs: bool) -> None:
    rng = np.random.default_rng(1)
    first = rng.normal(100, 5, size=2000) + np.array([[0.1], [-0.1], [0.0]])
    found = compare({"r0": first, "r1": first + np.array(lead)[:, None]}, seed=1, resamples=300).differences[0]
    assert found.family_high < 0  # images alone would have it so
    assert found.differs is differs


def test_seeds_are_tested_as_scipy_does_and_a_row_without_training_is_a_constant() -> None:
    first, second = np.array([1.0, 2.0, 4.0]), np.array([3.0, 9.0, 5.0])
    assert seeds_p(first, second) == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
    # t = (7/3 - 1) / (sqrt(7/3) / sqrt(3)) with 2 degrees of freedom, from either side
    assert seeds_p(first, first[:1]) == pytest.approx(2 * stats.t.sf(4 / 7**0.5, 2))
    assert seeds_p(first[:1], first) == seeds_p(first, first[:1])
    assert seeds_p(first[:1], second[:1]) is None
    assert (seeds_p(np.ones(2), np.ones(2)), seeds_p(np.ones(2), np.zeros(2))) == (1.0, 0.0)


@pytest.mark.parametrize(("apart", "expected"), [
    ("", {"p": "a", "q": "a", "r": "a"}),
    ("pr", {"p": "a", "q": "ab", "r": "b"}),  # q differs from neither, p and r do
    ("pq pr", {"p": "a", "q": "b", "r": "b"}),
    ("pq qr", {"p": "a", "q": "b", "r": "a"}),  # a wide interval in the middle is no obstacle
    ("pq pr qr", {"p": "a", "q": "b", "r": "c"}),
])  # fmt: skip
def test_letters_by_hand(apart: str, expected: dict[str, str]) -> None:
    assert letters("pqr", {frozenset(pair) for pair in apart.split()}) == expected


def test_letters_say_just_what_differs_with_none_too_many() -> None:
    """Every pattern of four rows: a letter is a largest set of rows of which no two differ."""
    rows = "pqrs"
    pairs = [frozenset(pair) for pair in combinations(rows, 2)]
    for chosen in product((False, True), repeat=len(pairs)):
        apart = {pair for pair, one in zip(pairs, chosen, strict=True) if one}
        subsets = chain.from_iterable(combinations(rows, size) for size in range(1, 5))
        alike = [set(one) for one in subsets if not any(frozenset(pair) in apart for pair in combinations(one, 2))]
        largest = [one for one in alike if not any(one < other for other in alike)]
        found = letters(rows, apart)
        held = [{row for row in rows if letter in found[row]} for letter in sorted(set("".join(found.values())))]
        assert sorted(map(sorted, held)) == sorted(map(sorted, largest))


def test_more_rows_than_letters() -> None:
    rows = [f"row {number}" for number in range(54)]
    found = letters(rows, {frozenset(pair) for pair in combinations(rows, 2)})
    assert (found["row 0"], found["row 51"], found["row 53"]) == ("a", "Z", "(53)")


def test_the_same_seed_gives_the_same_numbers_in_any_order() -> None:
    scores = np.random.default_rng(0).gamma(2, 50, size=(3, 40))
    there = compare(_rows(*scores), seed=7, resamples=200)
    back = compare(dict(reversed(_rows(*scores).items())), seed=7, resamples=200)
    for row, bounds in there.intervals.items():
        np.testing.assert_allclose(bounds, back.intervals[row])
    assert there.letters == back.letters
