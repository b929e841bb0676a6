"""What Table II's comparisons show and do not show: rank, checkpoint, choice of captions, self-critical baseline.

1. The paper reads an order into Table II's rank sweep (81.9, 82.9, 83.0) and its checkpoints. Here an effect is claimed
   only where rows differ beyond the noise of images and, by several seeds, of training.
2. The paper trains on the first caption and says that all five bring "5x" the time "without proportional gains" (VIII),
   without numbers. Here rows are set side by side only where nothing but the choice of captions differs, each with its
   steps and its difference to the first captions, with an interval.
3. The study of SCST on 500 images (VI.A) gives every gain its interval. Beside the validation images, which chose the
   best step and so flatter it, are the test images, which chose nothing; length and ended captions show whether reward
   was bought by cutting captions short.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from captioning.evaluation.significance import Difference, find_difference
from captioning.report.table import Row, Table

NONE = "–"
RANKS = ("base-r4", "base-r8", "base-r16")
CHECKPOINTS = ("base-r16", "mix", "cococap", "rsvqa-lr")
CHOICES = ("first", "random", "all")
CAPTIONS_NOTE = (
    "Each row of a checkpoint differs from the others in nothing but which captions it learns from. Steps are the "
    "optimizer's, each of as many captions; they are the cost of training. Differences are to the first captions, with "
    "the interval of all pairs of the table taken together; with one seed they tell these adapters apart, no more."
)
STUDY_NOTE = (
    "Gains are against the start adapter on the same images; each 95 % interval is a paired bootstrap over images, on "
    "its own, and percentages are of the start's score. The best step was chosen on the validation images, so that "
    "gain flatters; the test images chose nothing. Validation CIDEr takes its document frequencies from the "
    "training split, test CIDEr from the test references."
)


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
    found = find_difference(differences, first, second)
    if found is None:
        raise LookupError(f"{first} and {second} have letters and were not compared")
    return found if found.difference >= 0 else found.swapped


def _size(one: Difference, seeds: int) -> str:
    bounds = f"{one.family_low:.1f} to {one.family_high:.1f}, all pairs of the table taken together"
    test = f"; Welch's t test over {seeds} seeds: p = {one.seeds_p:.2g}" if one.seeds_p is not None else ""
    return f"{one.difference:.1f} points of CIDEr (95 % interval {bounds}{test})"


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
    return header, [line for group in groups for line in _choice_lines(group, recipes, steps, differences)]


def _but_for_captions(recipe: Mapping[str, Any]) -> str:
    tune = {key: value for key, value in recipe["finetune"].items() if key != "captions"}
    return json.dumps([recipe["checkpoint"]["name"], recipe["lora"], tune], sort_keys=True)


def _choice(recipes: Mapping[str, Mapping[str, Any]], row: Row) -> str:
    return str(recipes[row.key]["finetune"]["captions"])


def _choice_lines(
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
            _over_first(find_difference(differences, row.key, first.key) if first else None),
        ]
        for row in ordered
    ]


def _over_first(one: Difference | None) -> str:
    if one is None:
        return NONE
    return f"{one.difference:+.1f} ({one.family_low:+.1f} to {one.family_high:+.1f})"


def heading(recipe: Mapping[str, Any], train_images: int) -> str:
    """Of how many images the study is; `recipe`: SCST's, where 0 stands for all of the training split."""
    images = recipe["scst"]["images"]
    if not images or images >= train_images:
        return f"all {train_images:,} training images"
    return f"the {images:,}-image study"


def refinement(recipe: Mapping[str, Any]) -> str:
    """A name for one of SCST's rows beside its others: what is refined, against which baseline."""
    return f"{recipe['scst']['start']}, {recipe['scst']['baseline']}"


def study(
    recipes: Mapping[str, Mapping[str, Any]], training: Mapping[str, Sequence[Mapping[str, Any]]],
    rows: Mapping[str, Mapping[str, Any]], differences: Sequence[Difference],
) -> tuple[list[str], list[list[str]]]:  # fmt: skip
    """Header and rows, a column a row of SCST.

    `recipes`: SCST's, by row. `training`: metrics/training of every row, one a seed; their cells are joined with
    semicolons. `rows`: of data/scores/scores.json, whose numbers are means over seeds.
    """
    columns = {
        refinement(recipe): {
            **_validation(training[row]),
            **_test(
                rows[recipe["scst"]["start"]], rows[row], find_difference(differences, row, recipe["scst"]["start"])
            ),
        }
        for row, recipe in recipes.items()
    }
    titles = list(next(iter(columns.values()), {}))
    return ["", *columns], [[title, *(column[title] for column in columns.values())] for title in titles]


def _validation(runs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    def cells(*names: str) -> list[tuple[Any, ...]]:
        return [tuple(run[name] for name in names) for run in runs]

    scores = cells("start_validation_cider", "validation_cider", "best_step")
    gains = cells("gain_percent", "gain_percent_low", "gain_percent_high")
    return {
        "validation CIDEr, start → best (step)": "; ".join(f"{a:.1f} → {b:.1f} ({step})" for a, b, step in scores),
        "validation gain, %": "; ".join(_bounded(*gain) for gain in gains),
    }


def _test(start: Mapping[str, Any], refined: Mapping[str, Any], gain: Difference | None) -> dict[str, str]:
    before, after = start["mean"], refined["mean"]
    points = (gain.difference, gain.low, gain.high) if gain else (None, None, None)
    percent = [100 * value / before["CIDEr"] if value is not None and before["CIDEr"] else None for value in points]
    return {
        "test CIDEr, start → refined": f"{before['CIDEr']:.1f} → {after['CIDEr']:.1f}",
        "test gain, points": _bounded(*points),
        "test gain, %": _bounded(*percent),
        "words a test caption": f"{before['length']:.1f} → {after['length']:.1f}",
        "ended test captions, %": f"{100 * before['ended']:.1f} → {100 * after['ended']:.1f}",
    }


def _bounded(value: float | None, low: float | None, high: float | None) -> str:
    return NONE if value is None else f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
