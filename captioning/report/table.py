"""Table II: its rows, their order and groups. Its texts: report/table_text.py.

Source: the paper's Table II. Deliberate differences:

1. Further columns: the interval of CIDEr, letters for the rows that differ, BLEU-4, METEOR, ROUGE-L, length,
   diversity, the share of captions that ended, and, for drawn images, how often captions name scene and colour
   correctly. With several seeds, scores are mean ± standard deviation.
2. Further rows: zero-shot checkpoints beyond the paper's two, other variants, SCST's rows after the variant that they
   start from, and yardsticks without a model.
3. Labels use the recipe's rank and checkpoint. The paper's number is only next to ours if both agree with it. With
   `split.method: own` the test images are others, so the paper's CIDEr is left out.
4. No row is in bold as the best: one run cannot rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from captioning.base.errors import UserError
from captioning.data.outputs import CaptionStatistics, Manifest, Output, SplitStatistics
from captioning.evaluation.outputs import NO_PROTOCOLS, Evaluation, PartScores, ProtocolScores, Significance
from captioning.params.recipe import AnyRecipe, ScstRecipe, VariantRecipe

MODEL_NAMES = {"paper": "PaliGemma"}  # by profile; all others have the miniature's model
CHECKPOINT_NAMES = {
    "base": "Base",
    "mix": "Mix",
    "cococap": "COCOCap",
    "rsvqa-lr": "RSVQA/lr",
    "paligemma2": "PaliGemma 2",
}
YARDSTICKS = {
    "constant-caption": "One constant caption",
    "human-caption": "Reference C1 against the others",
    "nearest-image": "Caption of the nearest training image",
}
BASE_RANKS, PRETRAINED = ("base-r4", "base-r8", "base-r16"), ("mix", "cococap", "rsvqa-lr")
BEYOND_PAPER, YARDSTICK_GROUP = "Beyond the paper", "Yardsticks, no model"
Recipes = Mapping[str, AnyRecipe]  # by row


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's Table II, digits as printed there, and its configuration."""

    checkpoint: str
    rank: int | None
    CIDEr: float | None  # None: of other test images than this run's
    parameters: str = ""
    share: str = ""


PAPER = {
    "zero-shot-base": PaperRow("base", None, 15.2),
    "zero-shot-mix": PaperRow("mix", None, 11.4),
    "full-adapter": PaperRow("base", 8, 60.3, "14.2M", "0.48"),
    "base-r4": PaperRow("base", 4, 81.9, "5.65M", "0.19"),
    "base-r8": PaperRow("base", 8, 82.9, "11.3M", "0.38"),
    "base-r16": PaperRow("base", 16, 83.0, "22.6M", "0.76"),
    "mix": PaperRow("mix", 16, 113.2, "22.6M", "0.76"),
    "cococap": PaperRow("cococap", 16, 88.3, "22.6M", "0.76"),
    "rsvqa-lr": PaperRow("rsvqa-lr", 16, 75.1, "22.6M", "0.76"),
}


@dataclass(frozen=True)
class ScoreRow:
    """One row of the table: `name` is complete, `label` omits what the group's title says."""

    key: str
    name: str
    label: str
    group: str
    scores: Mapping[str, float]  # means over seeds, also against `caption_1` alone
    deviation: Mapping[str, float] | None  # None with one seed
    interval: tuple[float, float]  # 95 %, of CIDEr
    letters: str | None  # rows that share one do not differ; None: not compared
    signature: str  # the protocol
    signature_alone: str | None  # against `caption_1` alone
    seeds: int
    parameters: int | None = None
    share: float | None = None  # percent of all parameters, including adapters
    paper: PaperRow | None = None
    sources: Mapping[str, PartScores] = field(default_factory=dict)  # of each source alone; {} of a single one
    protocols: ProtocolScores = NO_PROTOCOLS


@dataclass(frozen=True)
class ScoreTable:
    """Table II, the number of its test images and of its resamples, and its seeds."""

    rows: tuple[ScoreRow, ...]
    profile: str
    images: int
    seeds: tuple[int, ...]
    resamples: int


class Training(Output):
    """data/training/<row>-<seed>.json: the model's parameters; `share`: percent of all that were trained."""

    trainable_parameters: int
    all_parameters: int
    share: float


class Refinement(Training):
    """The same of SCST: CIDEr times 100 of the validation images, and its gain in percent; None over a start of 0."""

    best_step: int
    start_validation_cider: float
    validation_cider: float
    gain_percent: float | None
    gain_percent_low: float | None  # of the 95 % interval
    gain_percent_high: float | None
    signature: str


@dataclass(frozen=True)
class RunOutputs:
    """What the earlier stages wrote: scores, recipes and training by row, one training record for each seed."""

    scores: Evaluation
    significance: Significance
    training: Mapping[str, Sequence[Training]]
    recipes: Recipes  # in the order of params.yaml
    splits: SplitStatistics
    captions: CaptionStatistics
    manifest: Manifest
    params_text: str

    @property
    def variants(self) -> dict[str, VariantRecipe]:
        """Return the recipes of the supervised trainings."""
        return {row: recipe for row, recipe in self.recipes.items() if isinstance(recipe, VariantRecipe)}

    @property
    def refined(self) -> dict[str, ScstRecipe]:
        """Return the recipes of SCST."""
        return {row: recipe for row, recipe in self.recipes.items() if isinstance(recipe, ScstRecipe)}

    @property
    def refinements(self) -> dict[str, list[Refinement]]:
        """Return the training records of SCST."""
        return {row: [seed for seed in self.training[row] if isinstance(seed, Refinement)] for row in self.refined}


def build_table(run: RunOutputs, zero_shot: Sequence[str], profile: str, seeds: Sequence[int]) -> ScoreTable:
    """Return the table with all rows in the paper's order. Raises `UserError` if a row has no scores."""
    model, is_paper = MODEL_NAMES.get(profile, "miniature"), profile == "paper"
    variants = [name for name in PAPER if name in run.recipes]
    variants += [name for name in run.recipes if name not in PAPER and name not in run.refined]
    groups = _group_titles(variants, run.recipes, model)
    rows: list[ScoreRow] = []
    beyond: list[ScoreRow] = []
    for checkpoint in zero_shot:
        key, name = f"zero-shot-{checkpoint}", _zero_shot_name(checkpoint, model)
        rows.append(_make_row(run, key, name, paper=_comparable(PAPER.get(key), run) if is_paper else None))
    for variant in variants:
        name, paper = _variant_name(variant, run.recipes[variant]), _paper_row(variant, run.recipes[variant])
        row = _make_row(run, variant, name, groups[variant], _comparable(paper, run) if is_paper else None)
        (beyond if row.group == BEYOND_PAPER else rows).append(row)
        refined = [(key, recipe.scst) for key, recipe in run.refined.items() if recipe.scst.start == variant]
        beyond += [_make_row(run, key, f"{name} + SCST, {scst.baseline}", BEYOND_PAPER) for key, scst in refined]
    yardsticks = [(key, name) for key, name in YARDSTICKS.items() if key in run.scores.rows]
    rows += beyond + [_make_row(run, key, name, YARDSTICK_GROUP) for key, name in yardsticks]
    return ScoreTable(tuple(rows), profile, run.scores.images, tuple(seeds), run.significance.resamples)


def _make_row(run: RunOutputs, key: str, name: str, group: str = "", paper: PaperRow | None = None) -> ScoreRow:
    for file, rows in (("scores", run.scores.rows), ("significance", run.significance.rows)):
        if key not in rows:
            raise UserError(f"data/scores/{file}.json: no row '{key}'; run the stage evaluate again")
    entry, test = run.scores.rows[key], run.significance.rows[key]
    counts = run.training[key][0] if key in run.training else None  # the same for all seeds
    label = name.removeprefix("Base + ") if group.startswith("Base ") else name
    scores = entry.mean, entry.deviation, (test.low, test.high), test.letters
    protocol = entry.signature, entry.signature_alone, len(entry.seeds)
    size: tuple[int | None, float | None] = (counts.trainable_parameters, counts.share) if counts else (None, None)
    return ScoreRow(key, name, label, group, *scores, *protocol, *size, paper, entry.sources, entry.protocols)


def _group_titles(variants: Sequence[str], recipes: Recipes, model: str) -> dict[str, str]:
    """Return the group's title of each variant; the paper's titles for the paper's variants."""
    ranks = {recipes[name].lora.rank for name in PRETRAINED if name in variants}
    pretrained = "Pre-trained checkpoints + QLoRA" + (f"-r{ranks.pop()}" if len(ranks) == 1 else "")
    titles = {"full-adapter": ""} | dict.fromkeys(BASE_RANKS, f"Base {model} + QLoRA")
    titles |= dict.fromkeys(PRETRAINED, pretrained)
    return {name: titles.get(name, BEYOND_PAPER) for name in variants}


def _zero_shot_name(checkpoint: str, model: str) -> str:
    name = model if checkpoint == "base" else f"{model} {CHECKPOINT_NAMES.get(checkpoint, checkpoint)}"
    return f"{name[0].upper()}{name[1:]} (zero-shot)"


def _variant_name(variant: str, recipe: AnyRecipe) -> str:
    if variant == "full-adapter":
        return "Full-Adapter"
    checkpoint = recipe.checkpoint.name
    name = f"{CHECKPOINT_NAMES.get(checkpoint, checkpoint)} + QLoRA-r{recipe.lora.rank}"
    return name if variant in PAPER else f"{variant}: {name}"


def _comparable(paper: PaperRow | None, run: RunOutputs) -> PaperRow | None:
    return replace(paper, CIDEr=None) if paper and run.splits.method == "own" else paper


def _paper_row(variant: str, recipe: AnyRecipe) -> PaperRow | None:
    """Return the paper's row if the variant still has its checkpoint and rank."""
    paper = PAPER.get(variant)
    is_same = paper and (paper.checkpoint, paper.rank) == (recipe.checkpoint.name, recipe.lora.rank)
    return paper if is_same else None
