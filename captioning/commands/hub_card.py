"""The model card that goes to the Hub: the stage's own, with scores, data and licences, and the Hub's metadata.

The card beside an adapter is an output of its training, which knows no scores yet. This adds what later stages found:
the same numbers with the same signatures, a model-index that the Hub reads, and yardsticks in the same table, for a
CIDEr alone flatters itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from captioning.adapters.card import extract_recipe
from captioning.base.errors import UserError
from captioning.evaluation.predictions import CAPTION_1
from captioning.evaluation.scores import METRICS
from captioning.params.recipe import AnyRecipe
from captioning.report.table import YARDSTICKS

TASK = "image-text-to-text"  # the Hub's pipeline of PaliGemma
DRAWN, REAL = ("drawn-overhead-scenes", "Drawn overhead scenes"), ("risc", "RISC")  # a data set's id and name
RECIPE = "## Recipe\n"
GEMMA = """The weights this adapter was trained on are PaliGemma's. Gemma is provided under and subject to the Gemma
Terms of Use found at https://ai.google.dev/gemma/terms; this adapter is a derivative and under the same terms. The
base's weights are not part of this repository."""
OWN = """The weights this adapter was trained on were made by the pipeline itself, and this adapter is under Apache-2.0.
They are no PaliGemma and are not part of this repository."""
RISC = """The training images and captions are RISC's (NWPU-Captions, RSICD, UCM-Captions), which have licences of their
own; none of them is part of this repository."""
SCENES = "The training images and captions were drawn by the pipeline itself."
CODE = "The pipeline's code is under Apache-2.0."


@dataclass(frozen=True)
class Findings:
    """What the pipeline knows of an adapter beside its card: files of metrics/ and data/captions/, read."""

    row: str
    scores: Mapping[str, Mapping[str, Any]]  # metrics/scores.json
    splits: Mapping[str, Any]  # metrics/splits.json
    manifest: Mapping[str, Any]  # data/captions/manifest.json
    seeds: int  # over how many the scores are means
    drawn: bool  # whether the images are


def hub_card(card: str, adapter: str, repository: str, base: str | None, found: Findings) -> str:
    """`card` as its stage wrote it, for `repository`; `base`: the checkpoint's repository on the Hub, if it has one.

    Raises `UserError` where the row has no scores.
    """
    recipe = extract_recipe(card)
    if recipe is None:
        raise UserError(f"{adapter}: no recipe in its README.md; take the one its stage wrote")
    if found.row not in found.scores:
        raise UserError(f"metrics/scores.json: no scores of {found.row}; run `dvc repro evaluate`")
    parsed = ModelCard(card)
    before, after = parsed.text.lstrip().split(RECIPE, 1)
    before = before.split("## Scores\n")[0]  # of a card that was published before
    before = before.replace(f'"models/adapters/{adapter}"', f'"{repository}"')
    if base:
        before = before.replace(f'"models/checkpoints/{recipe.checkpoint.name}"', f'"{base}"')
    data = metadata(adapter, base, recipe, parsed.data.to_dict().get("tags", []), found)
    parts = [before.rstrip(), scores_section(recipe, found), data_section(found), licence_section(recipe, found)]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + f"\n\n{RECIPE}{after.rstrip()}\n"


def metadata(adapter: str, base: str | None, recipe: AnyRecipe, tags: list[str], found: Findings) -> ModelCardData:
    """The Hub's front matter; scores as its model-index, one entry a metric with its signature."""
    dataset, name = DRAWN if found.drawn else REAL
    own = found.scores[found.row]
    results = [
        EvalResult(
            task_type=TASK, dataset_type=dataset, dataset_name=name, dataset_split="test", metric_type=metric.lower(),
            metric_name=f"{metric} × 100", metric_value=own[metric],
            metric_args={"signature": own["signature"]} | (_interval(own) if metric == "CIDEr" else {}),
        )
        for metric in METRICS
    ]  # fmt: skip
    return ModelCardData(
        model_name=adapter, base_model=base, library_name="peft", pipeline_tag=TASK, language="en",
        license="apache-2.0" if recipe.checkpoint.origin == "miniature" else "gemma",
        tags=[*(tag for tag in tags if tag != "lora"), "lora"], eval_results=results,
    )  # fmt: skip


def _interval(own: Mapping[str, Any]) -> dict[str, float]:
    return {"interval_low": own["CIDEr low"], "interval_high": own["CIDEr high"]}


def scores_section(recipe: AnyRecipe, found: Findings) -> str:
    """The row's scores under both protocols, beside the unadapted checkpoint and the yardsticks."""
    rows = [found.row, f"zero-shot-{recipe.checkpoint.name}", *YARDSTICKS]
    there = [row for row in rows if row in found.scores]
    own = found.scores[found.row]
    lines = ["## Scores", "", "Times 100, on the test split"]
    lines[-1] += f"; means over {found.seeds} seeds, of which this adapter is one." if found.seeds > 1 else "."
    lines += ["CIDEr has its 95 % interval, a bootstrap over the images.", ""]
    lines += _table(found.scores, there, METRICS, "")
    lines += ["", f"`{own['signature']}`", "", "Against each image's first reference alone:", ""]
    alone = [metric for metric in METRICS if metric + CAPTION_1 in own]
    lines += _table(found.scores, [row for row in there if alone[0] + CAPTION_1 in found.scores[row]], alone, CAPTION_1)
    return "\n".join([*lines, "", f"`{own['signature' + CAPTION_1]}`"])


def _table(scores: Mapping[str, Mapping[str, Any]], rows: list[str], metrics: Any, behind: str) -> list[str]:
    """Markdown's lines of a table."""
    head = [f"| row | {' | '.join(metrics)} |", f"|---|{'---|' * len(metrics)}"]
    return head + [
        f"| {row} | {' | '.join(_cell(scores[row], metric, behind) for metric in metrics)} |" for row in rows
    ]


def _cell(row: Mapping[str, Any], metric: str, behind: str) -> str:
    if metric == "CIDEr" and not behind:
        return f"{row[metric]:.2f} [{row['CIDEr low']:.2f}, {row['CIDEr high']:.2f}]"
    return f"{row[metric + behind]:.2f}"


def data_section(found: Findings) -> str:
    """Images by source and split, what was set aside, and the leakage that was measured."""
    sizes = found.splits["images"]
    lines = ["## Data", "", f"{(DRAWN if found.drawn else REAL)[1]}: {sum(sizes.values()):,} images."]
    lines += ["", "| source | images | " + " | ".join(sizes) + " |", f"|---|---|{'---|' * len(sizes)}"]
    for source, number in found.manifest["images"].items():
        split = found.splits["images_by_source"].get(source, {})
        lines.append(f"| {source} | {number:,} | " + " | ".join(f"{split.get(name, 0):,}" for name in sizes) + " |")
    hashes = [f"`{name}` has SHA-256 `{value}`" for name, value in found.manifest["sha256"].items()]
    aside = f"{found.manifest['set_aside']:,} rows or captions were set aside"
    leaked = found.splits["leakage"][found.splits["method"]]["groups_whole"]
    lines += ["", f"{aside}; {', '.join(hashes)}. Split by `{found.splits['method']}`, near-equal images on one side."]
    shares = ", ".join(f"{name.replace('_', ' ')} {share:.4f}" for name, share in leaked.items())
    return "\n".join([*lines, f"Share of the test split that training holds, too: {shares}."])


def licence_section(recipe: AnyRecipe, found: Findings) -> str:
    """Whose terms hold for what."""
    weights = OWN if recipe.checkpoint.origin == "miniature" else GEMMA
    return "\n\n".join(["## Licence", weights, SCENES if found.drawn else RISC, CODE])
