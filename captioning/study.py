"""What SCST gained, baseline beside baseline: the paper's study on 500 images (VI.A) as a heading and a small table.

Deliberate differences: every gain has its interval; beside the validation images, which chose the best step and so
flatter it, stand the test images, which chose nothing; length and ended captions show whether reward was bought by
cutting captions short; several rows may be refined, not the best alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from captioning.significance import Difference, between

NONE = "–"
NOTE = (
    "Gains are against the start adapter on the same images; each 95 % interval is a paired bootstrap over images, on "
    "its own, and percentages are of the start's score. The best step was chosen on the validation images, so that "
    "gain flatters; the test images chose nothing. Validation CIDEr takes its document frequencies from the "
    "training split, test CIDEr from the test references."
)


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
            **_test(rows[recipe["scst"]["start"]], rows[row], between(differences, row, recipe["scst"]["start"])),
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
