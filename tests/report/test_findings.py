"""The two sentences say of the numbers what they are, claim no effect from one seed, and cope with missing rows."""

import re
from itertools import combinations
from typing import Any

import pytest

from captioning.evaluation.significance import Difference
from captioning.report.comparisons import findings
from captioning.report.table import Row, Table

RECIPES: dict[str, Any] = {
    name: {"checkpoint": {"name": checkpoint}, "lora": {"rank": rank, "alpha": 16}, "finetune": {"epochs": 2}}
    for name, checkpoint, rank in [("base-r4", "base", 4), ("base-r8", "base", 8), ("base-r16", "base", 16),
                                   ("mix", "mix", 16), ("cococap", "cococap", 16), ("rsvqa-lr", "rsvqa-lr", 16)]
}  # fmt: skip
CIDER = {"base-r4": 83.0, "base-r8": 81.0, "base-r16": 82.0, "mix": 113.0, "cococap": 88.0, "rsvqa-lr": 75.0}


def said(apart: float, keys: tuple[str, ...] = tuple(CIDER), seeds: int = 1, recipes: Any = None) -> list[str]:
    """Sentences where rows differ whose scores are more than `apart` points from each other."""
    rows = [Row(key, f"Name {key}", key, "", {"CIDEr": CIDER[key]}, None, (0.0, 1.0), "a", "", None, seeds)
            for key in keys]  # fmt: skip
    pairs = [
        Difference(one, other, gap := CIDER[one] - CIDER[other], gap - 1, gap + 1, gap - 4, gap + 4,
                   0.03 if seeds > 1 else None, abs(gap) > apart)
        for one, other in combinations(keys, 2)
    ]  # fmt: skip
    return findings(Table(tuple(rows), "paper", 100, tuple(range(seeds)), 10_000), pairs, recipes or RECIPES)


def test_rank_sweep_that_shows_nothing_says_so() -> None:
    ranks = said(apart=5)[0]
    assert ranks.startswith("Rank sweep: no pair among base-r4, base-r8 and base-r16 differs beyond image noise;")
    assert "largest difference, base-r4 over base-r8, is 2.0 points of CIDEr (95 % interval -2.0 to 6.0" in ranks
    assert "no effect of rank is shown, and with one seed run-to-run noise" in ranks and ranks.endswith("unmeasured.")


def test_pairs_that_differ_are_named_with_the_higher_first_and_one_seed_claims_no_effect() -> None:
    checkpoints = said(apart=10)[1]
    assert "4 of 6 pairs among Name base-r16, Name mix, Name cococap and Name rsvqa-lr differ beyond" in checkpoints
    assert "(all but these: Name cococap over Name base-r16, Name base-r16 over Name rsvqa-lr)" in checkpoints
    assert "Name mix over Name rsvqa-lr, is 38.0 points of CIDEr (95 % interval 34.0 to 42.0" in checkpoints
    assert "no effect of the checkpoint is shown" in checkpoints and "run-to-run noise is unmeasured" in checkpoints


@pytest.mark.parametrize(("apart", "words"), [
    (35, "1 of 6 pairs among Name base-r16, Name mix, Name cococap and Name rsvqa-lr differ beyond image noise (these: "
         "Name mix over Name rsvqa-lr)"), (1, "every pair among Name base-r16,"),
])  # fmt: skip
def test_the_fewer_are_named(apart: float, words: str) -> None:
    assert words in said(apart=apart)[1]


def test_several_seeds_speak_for_training_runs() -> None:
    ranks, checkpoints = said(apart=10, seeds=3)
    assert "beyond image noise and the deviation of seeds" in ranks and "over 3 seeds: p = 0.03" in ranks
    assert ranks.endswith("an effect of rank is shown for none.")
    assert checkpoints.endswith("an effect of the checkpoint is shown for the pairs that differ, and for no other.")
    assert "unmeasured" not in ranks + checkpoints


@pytest.mark.parametrize(("keys", "titles"), [
    (("base-r4", "base-r16", "mix"), ["Rank sweep", "Checkpoint comparison"]), (("base-r4", "base-r8"), ["Rank sweep"]),
    (("mix", "cococap"), ["Checkpoint comparison"]), (("mix",), []), ((), []),
])  # fmt: skip
def test_missing_rows_leave_a_true_sentence_or_none(keys: tuple[str, ...], titles: list[str]) -> None:
    sentences = said(apart=1.5, keys=keys)
    assert [sentence.split(":")[0] for sentence in sentences] == titles
    assert not re.search(r"None|nan|, and|  ", "".join(sentences).replace(", and with one seed", ""))


def test_rows_that_differ_in_more_than_the_sweep_are_told() -> None:
    other = RECIPES | {"mix": RECIPES["mix"] | {"lora": {"rank": 4, "alpha": 16}}}
    ranks, checkpoints = said(apart=5, recipes=other)
    assert "whose other settings differ too" in checkpoints and "or of what else differs" in checkpoints
    assert "other settings" not in ranks
