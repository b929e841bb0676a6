"""Write the model card for the Hub: the card of the training stage, with scores, data, licences and the Hub's metadata.

The card beside an adapter is an output of its training, which knows no scores yet. The scores are the same numbers with
the same signatures as in data/scores, and the yardsticks are in the same table, since a CIDEr alone looks too good.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from captioning.data.outputs import Manifest, SplitStatistics
from captioning.evaluation.predictions import CAPTION_1
from captioning.evaluation.scores import METRICS
from captioning.evaluation.summary import CardScores
from captioning.params.recipe import CHECKPOINT_FOLDER, AnyRecipe
from captioning.report.table import YARDSTICKS
from captioning.report.table_text import format_markdown

TEMPLATE = Path(__file__).with_name("hub_card.md")
TASK = "image-text-to-text"  # the Hub's pipeline of PaliGemma
DRAWN, REAL = ("drawn-overhead-scenes", "Drawn overhead scenes"), ("risc", "RISC")  # a data set's id and name
RECIPE, USE = "## Recipe\n", "## Use\n"


@dataclass(frozen=True)
class RowResults:
    """What later stages found about an adapter's row and its data."""

    row: str
    scores: Mapping[str, CardScores]
    splits: SplitStatistics
    manifest: Manifest
    seeds: int  # the scores are means over them
    is_drawn: bool  # whether the images are drawn scenes


@dataclass(frozen=True)
class Loading:
    """What others need in order to load an adapter as it was loaded for its scores."""

    repository: str  # of the adapter, on the Hub
    base: str | None  # the checkpoint's repository, if it is on the Hub
    revision: str | None  # of the base
    versions: Sequence[str]  # pins of the packages that captioned the test images
    tensors: int  # of the adapter's file
    dtype: str  # of these tensors
    maximum_tokens: int


def make_hub_card(card: str, recipe: AnyRecipe, adapter: str, loading: Loading, results: RowResults) -> str:
    """Return the stage's `card` for the Hub."""
    parsed = ModelCard(card)
    introduction, recipe_block = parsed.text.split(RECIPE, 1)
    introduction = introduction.split(USE)[0]
    rows = [results.row, f"zero-shot-{recipe.checkpoint.name}", *YARDSTICKS]
    tags = list(dict.fromkeys([*parsed.data.to_dict().get("tags", []), "lora"]))
    hub_card = ModelCard.from_template(
        _make_metadata(adapter, loading.base, _is_miniature(recipe), tags, results),
        template_path=str(TEMPLATE),
        introduction=introduction.strip(),
        recipe=recipe_block.rstrip(),
        loading=loading,
        base=loading.base or f"{CHECKPOINT_FOLDER}/{recipe.checkpoint.name}",
        machine=recipe.machine,
        text=json.dumps(f"<image>{recipe.prompt}", ensure_ascii=False),
        results=results,
        scores_table=_scores_table(results.scores, rows, ""),
        first_reference_table=_scores_table(results.scores, rows, CAPTION_1),
        images_table=_images_table(results),
        dataset=(DRAWN if results.is_drawn else REAL)[1],
        is_miniature=_is_miniature(recipe),
    )
    return f"{hub_card}\n"


def _is_miniature(recipe: AnyRecipe) -> bool:
    return recipe.checkpoint.origin == "miniature"


def _make_metadata(
    adapter: str, base: str | None, is_miniature: bool, tags: list[str], results: RowResults
) -> ModelCardData:
    """Return the front matter, in which the Hub reads the scores as a model-index."""
    scores = results.scores[results.row]
    return ModelCardData(
        model_name=adapter,
        base_model=base,
        library_name="peft",
        pipeline_tag=TASK,
        language="en",
        license="apache-2.0" if is_miniature else "gemma",
        tags=tags,
        eval_results=[_eval_result(metric, scores, results.is_drawn) for metric in METRICS],
    )


def _eval_result(metric: str, scores: CardScores, is_drawn: bool) -> EvalResult:
    dataset, name = DRAWN if is_drawn else REAL
    interval = {"interval_low": scores.interval[0], "interval_high": scores.interval[1]}
    return EvalResult(
        task_type=TASK,
        dataset_type=dataset,
        dataset_name=name,
        dataset_split="test",
        metric_type=metric.lower(),
        metric_name=f"{metric} × 100",
        metric_value=scores.measures[metric],
        metric_args={"signature": metric_signature(metric, scores.signature)} | (interval if metric == "CIDEr" else {}),
    )


def metric_signature(metric: str, signature: str) -> str:
    """Return the `signature` of CIDEr-D for another metric, which uses no document frequencies."""
    if metric == "CIDEr":
        return signature
    return "|".join([metric, *(part for part in signature.split("|")[1:] if not part.startswith("df:"))])


def _scores_table(scores: Mapping[str, CardScores], rows: Sequence[str], suffix: str) -> str:
    """Return the table of the scores whose names end in `suffix`, for the `rows` that have them."""
    metrics = [metric for metric in METRICS if metric + suffix in scores[rows[0]].measures]
    scored = [row for row in rows if row in scores and metrics[0] + suffix in scores[row].measures]
    cells = [[row, *(f"{scores[row].measures[metric + suffix]:.2f}" for metric in metrics)] for row in scored]
    if not suffix:
        for line in cells:
            line[1] += " [{:.2f}, {:.2f}]".format(*scores[line[0]].interval)
    return format_markdown(["row", *metrics], cells)


def _images_table(results: RowResults) -> str:
    splits, by_source = results.splits.images, results.splits.images_by_source
    lines = [
        [source, f"{number:,}", *(f"{by_source.get(source, {}).get(split, 0):,}" for split in splits)]
        for source, number in results.manifest.images.items()
    ]
    return format_markdown(["source", "images", *splits], lines)
