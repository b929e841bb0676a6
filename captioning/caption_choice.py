"""Which captions to learn from: the first, a random one an epoch, or all five (the paper, VIII), as a small table.

The paper trains on the first and says that all five bring "5x" the time "without proportional gains", without numbers.
Deliberate difference: rows are set side by side only where nothing but the choice of captions differs, each with the
steps it took and its difference to the first captions, with an interval.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from captioning.significance import Difference, between
from captioning.table import Row

CHOICES = ("first", "random", "all")
NONE = "–"
NOTE = (
    "Each row of a checkpoint differs from the others in nothing but which captions it learns from. Steps are the "
    "optimizer's, each of as many captions; they are the cost of training. Differences are to the first captions, with "
    "the interval of all pairs of the table taken together; with one seed they tell these adapters apart, no more."
)


def caption_choice(
    rows: Sequence[Row], recipes: Mapping[str, Mapping[str, Any]], steps: Mapping[str, int],
    differences: Sequence[Difference],
) -> tuple[list[str], list[list[str]]] | None:  # fmt: skip
    """Header and rows; None where no two rows differ in their choice of captions alone.

    `recipes`: by row. `steps`: of the optimizer, by row.
    """
    alike: dict[str, list[Row]] = {}
    for row in rows:
        if "finetune" in recipes.get(row.key, {}):
            alike.setdefault(_but_for_captions(recipes[row.key]), []).append(row)
    groups = [group for group in alike.values() if len({_choice(recipes, row) for row in group}) > 1]
    if not groups:
        return None
    header = ["Model", "captions", "steps", "cost", "CIDEr", "95 % interval", "over the first"]
    return header, [line for group in groups for line in _lines(group, recipes, steps, differences)]


def _but_for_captions(recipe: Mapping[str, Any]) -> str:
    tune = {key: value for key, value in recipe["finetune"].items() if key != "captions"}
    return json.dumps([recipe["checkpoint"]["name"], recipe["lora"], tune], sort_keys=True)


def _choice(recipes: Mapping[str, Mapping[str, Any]], row: Row) -> str:
    return str(recipes[row.key]["finetune"]["captions"])


def _lines(
    group: Sequence[Row], recipes: Mapping[str, Mapping[str, Any]], steps: Mapping[str, int],
    differences: Sequence[Difference],
) -> list[list[str]]:  # fmt: skip
    ordered = sorted(group, key=lambda row: CHOICES.index(_choice(recipes, row)))
    first = next((row for row in ordered if _choice(recipes, row) == "first"), None)
    return [
        [
            row.name,
            _choice(recipes, row),
            f"{steps[row.key]:,}",
            f"{steps[row.key] / steps[first.key]:.1f}×" if first else NONE,
            f"{row.scores['CIDEr']:.1f}",
            f"{row.interval[0]:.1f} to {row.interval[1]:.1f}",
            _over(between(differences, row.key, first.key) if first else None),
        ]
        for row in ordered
    ]


def _over(one: Difference | None) -> str:
    if one is None:
        return NONE
    return f"{one.difference:+.1f} ({one.family_low:+.1f} to {one.family_high:+.1f})"
