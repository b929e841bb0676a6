"""What the rank sweep and the checkpoint comparison show and do not show: one sentence each, made from the numbers.

The paper reads an order into Table II's rank sweep (81.9, 82.9, 83.0) and its checkpoints. Deliberate difference: here
an effect is claimed only where rows differ beyond the noise of images and, by several seeds, of training.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from captioning.significance import Difference, between
from captioning.table import Table

RANKS = ("base-r4", "base-r8", "base-r16")
CHECKPOINTS = ("base-r16", "mix", "cococap", "rsvqa-lr")


def findings(
    table: Table, differences: Sequence[Difference], recipes: Mapping[str, Mapping[str, Any]]
) -> list[str]:  # fmt: skip
    """A sentence on the rank sweep and one on the checkpoints, each only where at least two of its rows are there."""
    rows = {row.key: row for row in table.rows if row.letters}
    ranks, checkpoints = ([key for key in keys if key in rows] for keys in (RANKS, CHECKPOINTS))
    other = {key: _without_rank(recipes[key]) for key in ranks}
    tuned = {key: (recipes[key]["lora"], recipes[key]["finetune"]) for key in checkpoints}
    sweeps = [
        Sweep("Rank sweep", "rank", {key: rows[key].label for key in ranks}, _differ(list(other.values()))),
        Sweep("Checkpoint comparison", "the checkpoint", {key: rows[key].name for key in checkpoints},
              _differ(list(tuned.values()))),
    ]  # fmt: skip
    return [sweep.sentence(differences, len(table.seeds)) for sweep in sweeps if len(sweep.names) > 1]


def _without_rank(recipe: Mapping[str, Any]) -> tuple[Any, ...]:
    lora = {key: value for key, value in recipe["lora"].items() if key != "rank"}
    return recipe["checkpoint"]["name"], lora, recipe["finetune"]


def _differ(settings: Sequence[Any]) -> bool:
    return any(one != settings[0] for one in settings)


@dataclass(frozen=True)
class Sweep:
    """Rows that are compared for one thing, `what`: `names` by row; `mixed`: they differ in more than that."""

    title: str
    what: str
    names: Mapping[str, str]
    mixed: bool

    def sentence(self, differences: Sequence[Difference], seeds: int) -> str:
        """Which pairs differ, the largest difference, and what follows from as many seeds."""
        found = [_larger_first(differences, *pair) for pair in combinations(self.names, 2)]
        largest, apart = max(found, key=lambda one: one.difference), [one for one in found if one.differs]
        return (
            f"{self.title}: {self._pairs(found, apart, seeds)}; the largest difference, {self._over(largest)}, is "
            f"{_size(largest, seeds)}; {self._conclusion(bool(apart), seeds)}."
        )

    def _pairs(self, found: Sequence[Difference], apart: Sequence[Difference], seeds: int) -> str:
        names, noise = list(self.names.values()), "image noise" + (" and the deviation of seeds" if seeds > 1 else "")
        among = f"{', '.join(names[:-1])} and {names[-1]}" + (
            ", whose other settings differ too," if self.mixed else ""
        )
        alike = [one for one in found if one not in apart]
        if not apart:
            return f"no pair among {among} differs beyond {noise}"
        if not alike:
            return f"every pair among {among} differs beyond {noise}"
        named = apart if len(apart) <= len(alike) else alike
        over = ", ".join(self._over(one) for one in named)
        only = "these" if named is apart else "all but these"
        return f"{len(apart)} of {len(found)} pairs among {among} differ beyond {noise} ({only}: {over})"

    def _over(self, one: Difference) -> str:
        return f"{self.names[one.first]} over {self.names[one.second]}"

    def _conclusion(self, apart: bool, seeds: int) -> str:
        what = f"{self.what} or of what else differs" if self.mixed else self.what
        if seeds > 1:
            return f"an effect of {what} is shown for {'the pairs that differ, and for no other' if apart else 'none'}"
        if apart:
            return f"with one seed run-to-run noise is unmeasured: these captions differ, no effect of {what} is shown"
        return f"no effect of {what} is shown, and with one seed run-to-run noise, which could hide one, is unmeasured"


def _larger_first(differences: Sequence[Difference], first: str, second: str) -> Difference:
    """The pair with the higher score first. Raises `LookupError` where the two were not compared."""
    found = between(differences, first, second)
    if found is None:
        raise LookupError(f"{first} and {second} have letters and were not compared")
    return found if found.difference >= 0 else found.turned


def _size(one: Difference, seeds: int) -> str:
    bounds = f"{one.family_low:.1f} to {one.family_high:.1f}, all pairs of the table taken together"
    test = f"; Welch's t test over {seeds} seeds: p = {one.seeds_p:.2g}" if one.seeds_p is not None else ""
    return f"{one.difference:.1f} points of CIDEr (95 % interval {bounds}{test})"
