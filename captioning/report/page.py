"""Write the page: one HTML file with Table II, Figures 1-7, the curves and explanations.

The file is complete in itself: images are data URIs, styles are inline, and nothing is fetched. It has no date and no
machine name, so the same run gives the same bytes.
"""

import re
from collections.abc import Mapping, Sequence

import pandas
from matplotlib.figure import Figure

from captioning.data.outputs import CaptionWords
from captioning.evaluation.outputs import Rows, RowScores, Usage
from captioning.params.recipe import ScstRecipe, ScstSettings
from captioning.report import comparisons, table_text
from captioning.report.curves import draw_scst_curves, draw_training_curves
from captioning.report.examples import Example
from captioning.report.figure_3 import draw_figure_3
from captioning.report.figures import SeedRow, draw_caption_lengths, draw_seeds, draw_table, draw_word_cloud
from captioning.report.published.comparison import compare_published
from captioning.report.table import Recipes, RunOutputs, ScoreRow, ScoreTable
from captioning.report.table_text import Cells, table_cells
from captioning.report.viewer.html import make_image_uri, render_template

MAX_LIST = 12  # values; longer lists of a metrics file are data, not key figures


def draw_figures(
    table: ScoreTable, run: RunOutputs, steps: Mapping[str, Sequence[pandas.DataFrame]], words: CaptionWords
) -> dict[str, Figure]:
    """Draw Table II, Figures 1 to 3 and the curves. `steps`: by row, one table for each seed. `words`: of captions.

    Figure 3 shows the first row of SCST.
    """
    first = next(iter(run.refined.values()))
    refinements = {comparisons.name_refinement(recipe): steps[row] for row, recipe in run.refined.items()}
    return {
        "table-2": draw_table(*table_cells(table), table_text.table_notes(table)),
        "figure-1": draw_caption_lengths(words.lengths, words.without),
        "figure-2": draw_word_cloud(words.counts),
        "figure-3": draw_figure_3(run.variants[first.scst.start], first),
        "training-curves": draw_training_curves({row: runs for row, runs in steps.items() if row not in run.refined}),
        "scst-curves": draw_scst_curves(refinements),
        "seeds": draw_seeds([_seed_row(row, run.scores.rows[row.key]) for row in table.rows]),
    }


def _seed_row(row: ScoreRow, scores: RowScores) -> SeedRow:
    ciders = [seed["CIDEr"] for seed in scores.seeds.values()]
    return SeedRow(row.name, ciders, row.parameters is not None, row.paper.CIDEr if row.paper else None)


def render_page(
    table: ScoreTable,
    run: RunOutputs,
    svgs: Mapping[str, bytes],
    examples: Mapping[str, Example],
    steps: Mapping[str, int],
) -> str:
    """Return the page as HTML; `svgs`: of all figures; `examples`: Figures 4-7; `steps`: of each trained row."""
    differences, first = run.significance.pairs, next(iter(run.refined))
    content = {
        "profile": table.profile,
        "notice": describe_model(table, max(seeds[0].all_parameters for seeds in run.training.values())),
        "table": table_cells(table),
        "notes": table_text.table_notes(table),
        "sentences": comparisons.describe_sweeps(table, differences, run.recipes),
        "rows": {row.key: row for row in table.rows},
        "seeds": len(table.seeds),
        "sources": table_text.source_cells(table),
        "source_note": table_text.source_note(table),
        "published": compare_published(table, run),
        "caption_1": table_text.caption_1_cells(table),
        "caption_1_note": table_text.caption_1_note(table),
        "protocols": table_text.protocol_cells(table),
        "protocol_note": table_text.protocol_note(table),
        "caption_choice": comparisons.make_choice_table(table.rows, run.recipes, steps, differences),
        "study_title": comparisons.name_study(run.refined[first], run.splits.images["train"]),
        "study": comparisons.make_study_table(run),
        "study_signature": run.refinements[first][0].signature,
        "uris": {name: make_image_uri("svg+xml", svg) for name, svg in svgs.items()},
        "examples": examples,
        "vocabulary": make_vocabulary_table(table, run.scores.rows),
        "recipes": make_recipe_table(table.rows, run.recipes),
        "splits": list_key_figures(run.splits.model_dump()),
        "captions": list_key_figures(run.captions.model_dump()),
        "set_aside": list_key_figures({"set aside in all": run.manifest.set_aside, **run.manifest.set_aside_by_reason}),
        "params_text": strip_params(run.params_text),
    }
    return render_template("captioning.report", "page.html.j2", content) + "\n"


def describe_model(table: ScoreTable, parameters: int) -> str:
    """Return a warning that the model is not PaliGemma; empty for the paper's profile."""
    if table.profile == "paper":
        return ""
    images = "drawn scenes" if any("scene" in row.scores for row in table.rows) else "the images of a folder"
    size = table_text.format_count(parameters)
    return (
        f"This is not PaliGemma-3B: it is a model of {size} parameters, including adapters, pre-trained on drawn "
        f"scenes, here adapted to and tested on {images}. It runs the same code as the paper profile; its numbers say "
        "nothing about what PaliGemma would score."
    )


def strip_params(text: str) -> str:
    """Remove `tracking` and `resume` from params.yaml, which change no result and must not change the page."""
    return re.sub(r"^(tracking|resume):.*\n(?: .*\n)*\n?", "", text, flags=re.MULTILINE)


def make_vocabulary_table(table: ScoreTable, scores: Rows) -> Cells:
    """Return section VII.C: the share of captions with a term of each group, and the gain over zero-shot in points."""
    entries = [(row.name, scores[row.key].vocabulary) for row in table.rows]
    groups = list(dict.fromkeys(group for _, entry in entries for group in entry))
    lines = [[name, *(_vocabulary_cell(entry.get(group)) for group in groups)] for name, entry in entries if entry]
    return ["Model", *groups], lines


def _vocabulary_cell(entry: Usage | None) -> str:
    if entry is None:
        return "–"
    return f"{100 * entry.share:.0f} %" + (f" ({100 * entry.gain:+.0f})" if entry.gain is not None else "")


def make_recipe_table(rows: Sequence[ScoreRow], recipes: Recipes) -> Cells:
    """Return the recipe of each trained row."""
    lora_keys = ["rank", "alpha", "dropout", "targets"]
    header = ["Model", "checkpoint", *lora_keys, "captions", "batch", "epochs", "learning rate"]
    lines = []
    for row in rows:
        if recipe := recipes.get(row.key):
            settings = recipe.scst if isinstance(recipe, ScstRecipe) else recipe.finetune
            epochs = f"{settings.epochs}"
            if isinstance(settings, ScstSettings):
                training = [f"{settings.samples} sampled, {settings.baseline}", f"{settings.batch} images"]
            else:
                training = [settings.captions, f"{settings.batch} × {settings.accumulation}"]
                epochs += f", at least {settings.minimum_steps} steps" if settings.minimum_steps else ""
            training += [epochs, f"{settings.learning_rate:g}"]
            adapter = [recipe.checkpoint.name, *(f"{getattr(recipe.lora, key)}" for key in lora_keys)]
            lines.append([row.name, *adapter, *training])
    return header, lines


def list_key_figures(metrics: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Return a metrics file as pairs (name, value), with nested names joined and without long lists."""
    figures: list[tuple[str, str]] = []
    for name, value in metrics.items():
        title = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            figures += list_key_figures(value, f"{title}: ")
        elif not isinstance(value, list):
            figures.append((title, _format_number(value)))
        elif len(value) <= MAX_LIST:
            figures.append((title, ", ".join(map(_format_number, value))))
    return figures


def _format_number(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
