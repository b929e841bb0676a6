"""The page: one self-contained HTML file with Table II, Figures 1-7, curves and what is needed to read them.

Plain values in, text out. Images are data URIs, styles are inline and nothing is fetched, so the file can be mailed
or archived. It carries no date and no machine's name: the same run gives the same bytes.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from captioning.evaluation.significance import Difference
from captioning.report.comparisons import (
    CAPTIONS_NOTE,
    STUDY_NOTE,
    caption_choice,
    findings,
    heading,
    refinement,
    study,
)
from captioning.report.curves import scst_curves, training_curves
from captioning.report.diagram import two_stage_pipeline
from captioning.report.figures import table_picture
from captioning.report.table import Row, Table
from captioning.report.table_text import count, display, display_alone, note_alone, notes

LONGEST_LIST = 12  # longer lists of a metrics file are data, not key figures

YARDSTICK_TEXTS = {
    "constant-caption": "the same caption for every image: what a model scores that never looks",
    "human-caption": "each image's first reference scored against its other references, four where it has five",
    "nearest-image": "the caption of the training image that looks most alike, by pixels: what copying scores",
}
FIGURES = {  # name: title and caption
    "figure-1": ("Figure 1. Lengths of the captions",
                 "How many words a caption has, as written and without stop words."),
    "figure-2": ("Figure 2. Word cloud",
                 "Words of the captions, sized by how often they occur; stop words left out."),
    "figure-3": ("Figure 3. Two-stage training pipeline",
                 "Drawn from the recipes of this run. The checkpoint's weights are frozen in both steps; step 1 trains "
                 "the adapters, step 2 refines those of the decoder."),
    "training-curves": ("Training curves",
                        "Cross-entropy in nats a token of each variant, on its training batches and on the validation "
                        "split. The adapter of the epoch with the lowest validation loss is the one tested."),
    "scst-curves": ("SCST curves",
                    "Rewards count the end of the sequence as a token. Whiskers are the 95 % interval of the gain over "
                    "the start adapter, about the score. Read CIDEr together with length and with the share of "
                    "captions that ended: a policy can buy reward by cutting captions short."),
}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A figure of the page: an SVG, what it shows in words, and its caption."""

    svg: bytes
    title: str
    caption: str

    @property
    def uri(self) -> str:
        """The SVG as a data URI."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode("ascii")


@dataclass(frozen=True)
class Run:
    """What the stages before have left, as their files hold it.

    `scores`, `significance`: data/scores. `training`: metrics/training by row, one a seed; `recipes`: by row.
    `splits`, `captions`: metrics.
    """

    scores: Mapping[str, Any]
    significance: Mapping[str, Any]
    training: Mapping[str, Sequence[Mapping[str, Any]]]
    recipes: Mapping[str, Mapping[str, Any]]
    splits: Mapping[str, Any]
    captions: Mapping[str, Any]
    params_text: str

    @property
    def counts(self) -> dict[str, Mapping[str, Any]]:
        """Numbers of parameters by row, the same for every seed."""
        return {row: seeds[0] for row, seeds in self.training.items()}

    @property
    def differences(self) -> list[Difference]:
        """Every pair's difference."""
        return [Difference(**pair) for pair in self.significance["pairs"]]

    @property
    def refined(self) -> dict[str, Mapping[str, Any]]:
        """SCST's recipes by row."""
        return {row: recipe for row, recipe in self.recipes.items() if "scst" in recipe}


def notice(profile: str, parameters: int, drawn: bool) -> str:
    """What the numbers are not, for the profile that is not the paper's; else empty.

    `parameters`: of the model; `drawn`: whether the test images are drawn."""
    if profile == "paper":
        return ""
    return (
        f"This is not PaliGemma-3B: it is a model of {count(parameters)} parameters, its adapters counted, pre-trained "
        f"on drawn scenes, here adapted to and tested on {'drawn scenes' if drawn else 'the images of a folder'}. "
        "It runs the same code as the paper profile; its numbers say nothing about what PaliGemma would score."
    )


def vocabulary(table: Table, scores: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """VII.C as header and rows: share of captions with a term of each group; gain over zero-shot in points."""
    entries = {row.key: scores["rows"][row.key].get("vocabulary") or {} for row in table.rows}
    groups = list(dict.fromkeys(group for entry in entries.values() for group in entry))
    rows = [[row.name, *(_vocabulary_cell(entries[row.key].get(group)) for group in groups)]
            for row in table.rows if entries[row.key]]  # fmt: skip
    return ["Model", *groups], rows


def _vocabulary_cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None:
        return "–"
    gain = entry.get("gain")
    return f"{100 * entry['share']:.0f} %" + (f" ({100 * gain:+.0f})" if gain is not None else "")


def recipe_table(rows: Sequence[Row], recipes: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Which recipe each trained row used, as header and rows."""
    header = ["Model", "checkpoint", "rank", "alpha", "dropout", "targets", "captions", "batch", "epochs",
              "learning rate"]  # fmt: skip
    return header, [[row.name, *_recipe_cells(recipes[row.key])] for row in rows if row.key in recipes]


def _recipe_cells(recipe: Mapping[str, Any]) -> list[str]:
    lora = recipe["lora"]
    adapter = [recipe["checkpoint"]["name"], *(f"{lora[key]}" for key in ("rank", "alpha", "dropout", "targets"))]
    if "scst" in recipe:
        scst = recipe["scst"]
        return [*adapter, f"{scst['samples']} sampled, {scst['baseline']}", f"{scst['batch']} images",
                str(scst["epochs"]), f"{scst['learning_rate']:g}"]  # fmt: skip
    tune = recipe["finetune"]
    return [*adapter, str(tune["captions"]), f"{tune['batch']} × {tune['accumulation']}", str(tune["epochs"]),
            f"{tune['learning_rate']:g}"]  # fmt: skip


def key_figures(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A metrics file as (name, value) pairs, nested names joined; lists too long to read are left out."""
    figures: list[tuple[str, str]] = []
    for name, value in metrics.items():
        title = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            figures += key_figures(value, f"{title}: ")
        elif not isinstance(value, list):
            figures.append((title, _number(value)))
        elif len(value) <= LONGEST_LIST:
            figures.append((title, ", ".join(_number(item) for item in value)))
    return figures


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def drawings(table: Table, run: Run, steps: Mapping[str, Sequence[pandas.DataFrame]]) -> dict[str, Figure]:
    """Table II, Figure 3 and the curves by name; `steps`: step records by row, one table a seed.

    Figure 3 shows the first of SCST's rows.
    """
    first = next(iter(run.refined.values()))
    return {
        "table-2": table_picture(*display(table), notes(table)),
        "figure-3": two_stage_pipeline(run.recipes[first["scst"]["start"]], first),
        "training-curves": training_curves({row: of for row, of in steps.items() if row not in run.refined}),
        "scst-curves": scst_curves({refinement(recipe): steps[row] for row, recipe in run.refined.items()}),
    }


def page(table: Table, run: Run, pictures: Mapping[str, Picture], steps: Mapping[str, int]) -> str:
    """The page's HTML. `pictures` are the page's by name: figure-1 … figure-7, training-curves, scst-curves. `steps`:
    how many each trained row took."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)  # fmt: skip
    parameters = max((int(counts["all_parameters"]) for counts in run.counts.values()), default=0)
    yardsticks = [row for row in table.rows if row.key in YARDSTICK_TEXTS]
    return environment.get_template("page.html.j2").render(
        profile=table.profile, table=display(table), notes=notes(table),
        findings=findings(table, run.differences, run.recipes),
        alone=display_alone(table), alone_note=note_alone(table),
        notice=notice(table.profile, parameters, any("scene" in row.scores for row in table.rows)),
        yardsticks=[(row.name, f"{row.scores['CIDEr']:.1f}", YARDSTICK_TEXTS[row.key]) for row in yardsticks],
        captions_choice=caption_choice(table.rows, run.recipes, steps, run.differences), captions_note=CAPTIONS_NOTE,
        study=_study(run), pictures=pictures, vocabulary=vocabulary(table, run.scores),
        recipes=recipe_table(table.rows, run.recipes), splits=key_figures(run.splits),
        captions=key_figures(run.captions), params_text=run.params_text,
    ) + "\n"  # fmt: skip


def _study(run: Run) -> dict[str, Any]:
    """SCST's section: its title, its table and how that was scored."""
    refined = run.refined
    signature = run.training[next(iter(refined))][0]["signature"]
    return {
        "title": heading(next(iter(refined.values())), run.splits["images"]["train"]),
        "table": study(refined, run.training, run.scores["rows"], run.differences),
        "notes": [STUDY_NOTE, f"Protocol of validation: {signature}."],
    }
