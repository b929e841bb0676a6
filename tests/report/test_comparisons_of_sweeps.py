"""Sentences on ranks and checkpoints agree with the numbers, and claim no effect from one seed."""

import re
from itertools import combinations
from typing import Any

import pytest

from captioning.evaluation.significance import Difference
from captioning.params.recipe import VariantRecipe
from captioning.report.comparisons import describe_sweeps
from captioning.report.table import ScoreRow, ScoreTable
from tests.helpers.small_recipes import variant_recipe

CIDER = {"base-r4": 83.0, "base-r8": 81.0, "base-r16": 82.0, "mix": 113.0, "cococap": 88.0, "rsvqa-lr": 75.0}
NAMES = "Name base-r16, Name mix, Name cococap and Name rsvqa-lr"


def recipe(key: str, rank: int = 16) -> VariantRecipe:
    checkpoint, _, number = key.partition("-r")
    is_base = checkpoint == "base"
    return variant_recipe(name="base" if is_base else key, rank=int(number) if is_base else rank)


def sentences(threshold: float, keys: tuple[str, ...] = tuple(CIDER), seeds: int = 1, **ranks: int) -> list[str]:
    """Sentences if rows differ whose scores are more than `threshold` points apart."""
    shared: Any = (None, (0.0, 1.0), "a", "", None, seeds)
    rows = [ScoreRow(key, f"Name {key}", key, "", {"CIDEr": CIDER[key]}, *shared) for key in keys]
    pairs = []
    for first, second in combinations(keys, 2):
        gap, p = CIDER[first] - CIDER[second], 0.03 if seeds > 1 else None
        pairs.append(Difference(first, second, gap, gap - 1, gap + 1, gap - 4, gap + 4, p, abs(gap) > threshold))
    recipes = {key: recipe(key, ranks.get(key, 16)) for key in keys}
    return describe_sweeps(ScoreTable(tuple(rows), "paper", 100, tuple(range(seeds)), 10_000), pairs, recipes)


def test_a_sweep_without_differences_shows_no_effect() -> None:
    ranks = sentences(threshold=5)[0]
    assert ranks.startswith("Rank sweep: no pair among base-r4, base-r8 and base-r16 differs beyond image noise;")
    assert "largest difference, base-r4 over base-r8, is 2.0 points of CIDEr (95 % interval -2.0 to 6.0" in ranks
    assert ranks.endswith(
        "no effect of rank is shown; with one seed, noise between runs is unmeasured and could hide one."
    )


@pytest.mark.parametrize(
    ("threshold", "text"),
    [
        (35, f"1 of 6 pairs among {NAMES} differ beyond image noise (these: Name mix over Name rsvqa-lr)"),
        (10, f"4 of 6 pairs among {NAMES} differ beyond image noise (all but these: Name cococap over Name base-r16, "),
        (1, f"every pair among {NAMES} differs"),
    ],
)
def test_differing_pairs_are_named_but_one_seed_shows_no_effect(threshold: float, text: str) -> None:
    checkpoints = sentences(threshold)[1]
    assert text in checkpoints
    assert "Name mix over Name rsvqa-lr, is 38.0 points of CIDEr (95 % interval 34.0 to 42.0" in checkpoints
    assert checkpoints.endswith("these captions differ, but one seed cannot show an effect of the checkpoint.")


def test_several_seeds_can_show_an_effect() -> None:
    ranks, checkpoints = sentences(threshold=10, seeds=3)
    assert "beyond image noise and the deviation of seeds" in ranks and "over 3 seeds: p = 0.03" in ranks
    assert ranks.endswith("no pair shows an effect of rank.")
    assert checkpoints.endswith("only the pairs that differ show an effect of the checkpoint.")


@pytest.mark.parametrize(
    ("keys", "titles"),
    [
        (("base-r4", "base-r16", "mix"), ["Rank sweep", "Checkpoint comparison"]),
        (("base-r4", "base-r8"), ["Rank sweep"]),
        (("mix", "cococap"), ["Checkpoint comparison"]),
        (("mix",), []),
        ((), []),
    ],
)
def test_missing_rows_leave_a_true_sentence_or_none(keys: tuple[str, ...], titles: list[str]) -> None:
    remaining = sentences(threshold=1.5, keys=keys)
    assert [sentence.split(":")[0] for sentence in remaining] == titles
    assert not re.search(r"None|nan|  ", "".join(remaining))


def test_rows_that_also_differ_in_other_settings_are_marked() -> None:
    ranks, checkpoints = sentences(threshold=5, mix=4)
    assert "whose other settings differ too" in checkpoints and "or of the other settings" in checkpoints
    assert "other settings" not in ranks
