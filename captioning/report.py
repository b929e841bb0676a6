"""The page: one self-contained HTML file with Table II, Figures 1-7, curves and what is needed to read them.

Plain values in, text out. Images are data URIs, styles are inline and nothing is fetched, so the file can be mailed
or archived. It carries no date and no machine's name: the same run gives the same bytes.

Deliberate difference from the paper: the test images of Figures 4-7 are drawn by a seed, not chosen by eye, from as
many different scenes (sources, where none is known) as there are figures; nobody looked at their captions first.
"""

import base64
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from captioning.table import Row, Table, count, display

EXAMPLES = 4  # the paper's Figures 4-7
DRAW = "figures 4-7"  # seed of the draw; random.Random hashes a string the same on every machine
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
                    "Rewards count the end of the sequence as a token. Read CIDEr together with length and with the "
                    "share of captions that ended: a policy can buy reward by cutting captions short."),
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


def draw_examples(groups: Mapping[str, Sequence[str]], number: int = EXAMPLES, seed: str = DRAW) -> list[str]:
    """`number` ids, each of another group as far as there are; `groups`: group to its ids, in any order."""
    draw = random.Random(seed)
    left = {name: draw.sample(sorted(ids), len(ids)) for name, ids in sorted(groups.items()) if ids}
    names = draw.sample(sorted(left), len(left))
    chosen: list[str] = []
    while len(chosen) < number and any(left.values()):
        chosen += [left[name].pop() for name in names if left[name]][: number - len(chosen)]
    return chosen


def scene_or_source(row: Mapping[str, Any]) -> str:
    """What an image is of: the scene of a drawn one, the source of a real one. `row`: one of `images.parquet`."""
    return str(json.loads(row["facts"])["scene"] if row["facts"] else row["source"])


def example_rows(number: int, rows: Sequence[Row]) -> list[Row]:
    """The rows that Figure `number` (4 to 7) compares: the paper's, SCST added, as far as the run has them."""
    keys = ("zero-shot-base", "full-adapter") if number == 4 else ("zero-shot-base", "base-r16", "mix", "scst")
    models = [row for row in rows if row.paper or row.share is not None or row.key.startswith("zero-shot")]
    return [row for row in rows if row.key in keys] or models[:3]


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


def page(
    table: Table, scores: Mapping[str, Any], training: Mapping[str, Mapping[str, Any]],
    recipes: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, Picture], splits: Mapping[str, Any],
    captions: Mapping[str, Any], params_text: str,
) -> str:  # fmt: skip
    """The page's HTML. `pictures` are the page's by name: figure-1 … figure-7, training-curves, scst-curves."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)  # fmt: skip
    parameters = max((int(counts["all_parameters"]) for counts in training.values()), default=0)
    yardsticks = [row for row in table.rows if row.key in YARDSTICK_TEXTS]
    return environment.get_template("report.html.j2").render(
        profile=table.profile, table=display(table), notes=table.notes,
        notice=notice(table.profile, parameters, any("scene" in row.scores for row in table.rows)),
        yardsticks=[(row.name, f"{row.scores['CIDEr']:.1f}", YARDSTICK_TEXTS[row.key]) for row in yardsticks],
        pictures=pictures, vocabulary=vocabulary(table, scores), recipes=recipe_table(table.rows, recipes),
        splits=key_figures(splits), captions=key_figures(captions), params_text=params_text,
    ) + "\n"  # fmt: skip
