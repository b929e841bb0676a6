"""Compare rows of Table II: ranks, checkpoints, choices of captions, and self-critical baselines.

1. The paper reads an order into Table II's rank sweep (81.9, 82.9, 83.0) and into its checkpoints. Here a sentence
   claims an effect only if rows differ beyond the noise of images and, with several seeds, of training.
2. The paper trains on the first caption and says, without numbers, that all five cost "5x" the time "without
   proportional gains" (VIII). Here rows are compared only if they differ in nothing but the choice of captions.
3. The study of SCST on 500 images (VI.A) has an interval for each gain. The validation images chose the best
   step, which flatters their gain; the test images chose nothing. Length and ended captions show if a policy cuts
   captions short.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from captioning.evaluation.significance import Difference, find_difference
from captioning.params.recipe import FinetuneSettings, ScstRecipe, VariantRecipe
from captioning.params.sections import Lora
from captioning.report.table import Recipes, Refinement, RunOutputs, ScoreRow, ScoreTable
from captioning.report.table_text import NONE, Cells

RANK_ROWS = ("base-r4", "base-r8", "base-r16")
CHECKPOINT_ROWS = ("base-r16", "mix", "cococap", "rsvqa-lr")
CHOICES = ("first", "random", "all")
CHOICE_HEADER = ["Model", "captions", "steps", "cost", "CIDEr", "95 % interval", "over the first"]


def describe_sweeps(table: ScoreTable, differences: Sequence[Difference], recipes: Recipes) -> list[str]:
    """Return a sentence on the rank sweep and one on the checkpoints, each if at least two of its rows exist."""
    rows = {row.key: row for row in table.rows if row.letters}
    ranks, checkpoints = ([key for key in keys if key in rows] for keys in (RANK_ROWS, CHECKPOINT_ROWS))
    labels, names = {key: rows[key].label for key in ranks}, {key: rows[key].name for key in checkpoints}
    variants = {key: recipe for key, recipe in recipes.items() if isinstance(recipe, VariantRecipe)}
    without_rank = [_without_rank(variants[key]) for key in ranks]
    without_checkpoint = [(variants[key].lora, variants[key].finetune) for key in checkpoints]
    sweeps = [
        Sweep("Rank sweep", "rank", labels, _differ(without_rank)),
        Sweep("Checkpoint comparison", "the checkpoint", names, _differ(without_checkpoint)),
    ]
    return [sweep.describe(differences, len(table.seeds)) for sweep in sweeps if len(sweep.names) > 1]


def _without_rank(recipe: VariantRecipe) -> tuple[str, Lora, FinetuneSettings]:
    return recipe.checkpoint.name, recipe.lora.model_copy(update={"rank": 1}), recipe.finetune


def _differ(settings: Sequence[object]) -> bool:
    return any(setting != settings[0] for setting in settings)


@dataclass(frozen=True)
class Sweep:
    """Rows compared by one `factor`: `names` by row; `is_mixed` if they also differ in other settings."""

    title: str
    factor: str
    names: Mapping[str, str]
    is_mixed: bool

    def describe(self, differences: Sequence[Difference], seeds: int) -> str:
        """Say which pairs differ, how large the largest difference is, and what follows from the number of seeds."""
        pairs = [_larger_first(differences, *pair) for pair in combinations(self.names, 2)]
        largest, differing = max(pairs, key=lambda pair: pair.difference), [pair for pair in pairs if pair.differs]
        bounds = f"{largest.family_low:.1f} to {largest.family_high:.1f}, all pairs of the table taken together"
        test = f"; Welch's t test over {seeds} seeds: p = {largest.seeds_p:.2g}" if largest.seeds_p is not None else ""
        return (
            f"{self.title}: {self._describe_pairs(pairs, differing, seeds)}; the largest difference, "
            f"{self._over(largest)}, is {largest.difference:.1f} points of CIDEr (95 % interval {bounds}{test}); "
            f"{self._conclude(bool(differing), seeds)}."
        )

    def _describe_pairs(self, pairs: Sequence[Difference], differing: Sequence[Difference], seeds: int) -> str:
        *names, last_name = self.names.values()
        among = f"{', '.join(names)} and {last_name}" + (", whose other settings differ too," if self.is_mixed else "")
        noise = "image noise" + (" and the deviation of seeds" if seeds > 1 else "")
        if len(differing) in (0, len(pairs)):
            return f"{'every' if differing else 'no'} pair among {among} differs beyond {noise}"
        equal_pairs = [pair for pair in pairs if not pair.differs]
        scope, listed = ("these", differing) if len(differing) <= len(equal_pairs) else ("all but these", equal_pairs)
        listing = ", ".join(map(self._over, listed))
        return f"{len(differing)} of {len(pairs)} pairs among {among} differ beyond {noise} ({scope}: {listing})"

    def _over(self, pair: Difference) -> str:
        return f"{self.names[pair.first]} over {self.names[pair.second]}"

    def _conclude(self, differs: bool, seeds: int) -> str:
        factor = f"{self.factor} or of the other settings" if self.is_mixed else self.factor
        if seeds > 1:
            return f"{'only the pairs that differ show' if differs else 'no pair shows'} an effect of {factor}"
        if differs:
            return f"these captions differ, but one seed cannot show an effect of {factor}"
        return f"no effect of {factor} is shown; with one seed, noise between runs is unmeasured and could hide one"


def _larger_first(differences: Sequence[Difference], row: str, other_row: str) -> Difference:
    pair = find_difference(differences, row, other_row)
    if pair is None:
        raise LookupError(f"{row} and {other_row} have letters and were not compared")
    return pair if pair.difference >= 0 else pair.swapped


def make_choice_table(
    rows: Sequence[ScoreRow], recipes: Recipes, steps: Mapping[str, int], differences: Sequence[Difference]
) -> Cells | None:
    """Compare rows that differ only in their choice of captions; None without such rows. `steps`: by row."""
    variants = {key: recipe for key, recipe in recipes.items() if isinstance(recipe, VariantRecipe)}
    groups: dict[str, list[ScoreRow]] = {}
    for row in rows:
        if row.key in variants:
            groups.setdefault(_without_captions(variants[row.key]), []).append(row)
    choices = {key: recipe.finetune.captions for key, recipe in variants.items()}
    lines = []
    for group in groups.values():
        ordered = sorted(group, key=lambda row: CHOICES.index(choices[row.key]))
        if choices[ordered[0].key] != choices[ordered[-1].key]:
            first_row = next((row.key for row in ordered if choices[row.key] == "first"), None)
            lines += [
                [row.name, choices[row.key], *_choice_cells(row, first_row, steps, differences)] for row in ordered
            ]
    return (CHOICE_HEADER, lines) if lines else None


def _without_captions(recipe: VariantRecipe) -> str:
    settings = [recipe.lora.model_dump(), recipe.finetune.model_dump(exclude={"captions"})]
    return json.dumps([recipe.checkpoint.name, *settings])


def _choice_cells(
    row: ScoreRow, first_row: str | None, steps: Mapping[str, int], differences: Sequence[Difference]
) -> Iterator[str]:
    gain = find_difference(differences, row.key, first_row) if first_row else None
    yield f"{steps[row.key]:,}"
    yield f"{steps[row.key] / steps[first_row]:.1f}×" if first_row else NONE
    yield f"{row.scores['CIDEr']:.1f}"
    yield f"{row.interval[0]:.1f} to {row.interval[1]:.1f}"
    yield f"{gain.difference:+.1f} ({gain.family_low:+.1f} to {gain.family_high:+.1f})" if gain else NONE


def name_study(recipe: ScstRecipe, train_images: int) -> str:
    """Name the study by its number of images; in SCST's recipe, 0 means the whole training split."""
    images = recipe.scst.images
    if not images or images >= train_images:
        return f"all {train_images:,} training images"
    return f"the {images:,}-image study"


def name_refinement(recipe: ScstRecipe) -> str:
    """Name a row of SCST by its start and its baseline."""
    return f"{recipe.scst.start}, {recipe.scst.baseline}"


def make_study_table(run: RunOutputs) -> Cells:
    """Compare SCST's rows with their starts, one column for each row; several seeds are joined with semicolons."""
    columns = {}
    for row, recipe in run.refined.items():
        start, rows = recipe.scst.start, run.scores.rows
        gain = find_difference(run.significance.pairs, row, start)
        test = _test_cells(rows[start].mean, rows[row].mean, gain)
        columns[name_refinement(recipe)] = _validation_cells(run.refinements[row]) | test
    titles = list(next(iter(columns.values()), {}))
    return ["", *columns], [[title, *(column[title] for column in columns.values())] for title in titles]


def _validation_cells(seeds: Sequence[Refinement]) -> dict[str, str]:
    gains = [_format_gain(seed.gain_percent, seed.gain_percent_low, seed.gain_percent_high) for seed in seeds]
    improvements = "; ".join(
        f"{seed.start_validation_cider:.1f} → {seed.validation_cider:.1f} ({seed.best_step})" for seed in seeds
    )
    return {"validation CIDEr, start → best (step)": improvements, "validation gain, %": "; ".join(gains)}


def _test_cells(before: Mapping[str, float], after: Mapping[str, float], gain: Difference | None) -> dict[str, str]:
    gains = (gain.difference, gain.low, gain.high) if gain else (None, None, None)
    percent = [100 * value / before["CIDEr"] if value is not None and before["CIDEr"] else None for value in gains]
    return {
        "test CIDEr, start → refined": f"{before['CIDEr']:.1f} → {after['CIDEr']:.1f}",
        "test gain, points": _format_gain(*gains),
        "test gain, %": _format_gain(*percent),
        "words a test caption": f"{before['length']:.1f} → {after['length']:.1f}",
        "ended test captions, %": f"{100 * before['ended']:.1f} → {100 * after['ended']:.1f}",
    }


def _format_gain(value: float | None, low: float | None, high: float | None) -> str:
    return NONE if value is None else f"{value:+.1f} ({low:+.1f} to {high:+.1f})"
