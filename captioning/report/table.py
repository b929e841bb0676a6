"""Table II: its rows, their order and grouping. How it is written: report/table_text.py.

Source: the paper's Table II. Deliberate differences:

1. Beside CIDEr stand its interval, letters that say which rows differ, BLEU-4, METEOR, ROUGE-L, length, the share of
   captions that ended and, where a world was drawn, how often scene and colour are named right. With several seeds,
   scores are mean ± standard deviation.
2. Further checkpoints as they are stand with the paper's two. After the paper's rows come further variants, each with
   SCST's rows that start from it, one a baseline, and yardsticks that involve no model.
3. Labels take rank and checkpoint from the recipe. The paper's number stands beside ours only where both agree with it.
4. Nothing is set in bold as best: one run cannot rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from captioning.base.errors import UserError

MODELS = {"paper": "PaliGemma", "miniature": "miniature"}
CHECKPOINTS = {"base": "Base", "mix": "Mix", "cococap": "COCOCap", "rsvqa-lr": "RSVQA/lr",
               "paligemma2": "PaliGemma 2"}  # fmt: skip
YARDSTICKS = {"constant-caption": "One constant caption", "human-caption": "Reference C1 against the others",
              "nearest-image": "Caption of the nearest training image"}  # fmt: skip
BEYOND, YARDSTICK_GROUP = "Beyond the paper", "Yardsticks, no model"


@dataclass(frozen=True)
class PaperRow:
    """One row of the paper's Table II, digits as printed there, and the configuration that it belongs to."""

    checkpoint: str
    rank: int | None
    CIDEr: float
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
class Row:
    """One row. `name` says all, `label` what its group's title leaves open.

    `scores`: means over seeds by name, those against `caption_1` alone among them; `deviation` is None with one seed.
    `interval`: 95 %, of CIDEr. `letters`: rows that share one do not differ; None where a row is not compared.
    `signature`: how the scores came about; `signature_alone`: those against `caption_1`, None where there are none.
    """

    key: str
    name: str
    label: str
    group: str
    scores: Mapping[str, float]
    deviation: Mapping[str, float] | None
    interval: tuple[float, float]
    letters: str | None
    signature: str
    signature_alone: str | None
    seeds: int
    parameters: int | None = None
    share: float | None = None  # percent of all parameters, adapters counted
    paper: PaperRow | None = None


@dataclass(frozen=True)
class Table:
    """Table II: of how many images its scores are, from which seeds, and of how many resamples its intervals."""

    rows: tuple[Row, ...]
    profile: str
    images: int
    seeds: tuple[int, ...]
    resamples: int


def build_table(
    scores: Mapping[str, Any], significance: Mapping[str, Any], training: Mapping[str, Mapping[str, Any]],
    recipes: Mapping[str, Mapping[str, Any]], zero_shot: Sequence[str], profile: str, seeds: Sequence[int],
) -> Table:  # fmt: skip
    """Every row of the run, in the paper's order.

    `scores`, `significance`: data/scores/*.json. `training`: counts of trainable parameters by variant, and of SCST's
    rows. `recipes`: data/recipes/*.json by row in the order of params.yaml; those with a section `scst` are SCST's.
    Raises `UserError` where a row has no scores.
    """
    model, source = MODELS.get(profile, profile), _Source(scores["rows"], significance["rows"], training)
    rows = [_zero_shot(checkpoint, model, source, profile) for checkpoint in zero_shot]
    variants = {name: recipe for name, recipe in recipes.items() if "scst" not in recipe}
    groups = _groups(variants, model)
    rows += [_variant(name, variants[name], group, source, profile) for name, group in groups.items()]
    refined = [name for name in recipes if name not in variants]
    alike = {name: (_refined(recipes[name], recipes), BEYOND) for name in refined}
    alike |= {key: (name, YARDSTICK_GROUP) for key, name in YARDSTICKS.items() if key in scores["rows"]}
    rows += [source.row(key, name, name, group) for key, (name, group) in alike.items()]
    order, names = ["", *dict.fromkeys(groups.values()), BEYOND, YARDSTICK_GROUP], list(groups)

    def place(row: Row) -> tuple[int, int, bool]:
        start = recipes[row.key]["scst"]["start"] if row.key in refined else row.key
        return order.index(row.group), names.index(start) if row.group == BEYOND else 0, row.key in refined

    rows.sort(key=place)
    return Table(tuple(rows), profile, int(scores["images"]), tuple(seeds), int(significance["resamples"]))


@dataclass(frozen=True)
class _Source:
    """What rows are made from, each by row."""

    scores: Mapping[str, Mapping[str, Any]]
    significance: Mapping[str, Mapping[str, Any]]
    training: Mapping[str, Mapping[str, Any]]

    def row(self, key: str, name: str, label: str, group: str, paper: PaperRow | None = None) -> Row:
        for file, rows in (("scores", self.scores), ("significance", self.significance)):
            if key not in rows:
                raise UserError(f"data/scores/{file}.json: no row '{key}'; run the stage evaluate again")
        entry, found, counts = self.scores[key], self.significance[key], self.training.get(key, {})
        return Row(
            key, name, label, group, entry["mean"], entry.get("deviation"), (found["low"], found["high"]),
            found["letters"], entry["signature"], entry.get("signature caption_1"), len(entry["seeds"]),
            counts.get("trainable_parameters"), counts.get("share"), paper,
        )  # fmt: skip


def _groups(variants: Mapping[str, Mapping[str, Any]], model: str) -> dict[str, str]:
    """The group's title of each variant; the paper's own titles for the paper's own names."""
    ranks = {recipe["lora"]["rank"] for name, recipe in variants.items() if name in ("mix", "cococap", "rsvqa-lr")}
    pretrained = "Pre-trained checkpoints + QLoRA" + (f"-r{ranks.pop()}" if len(ranks) == 1 else "")
    titles = {"full-adapter": ""} | dict.fromkeys(("base-r4", "base-r8", "base-r16"), f"Base {model} + QLoRA")
    titles |= dict.fromkeys(("mix", "cococap", "rsvqa-lr"), pretrained)
    ordered = [name for name in PAPER if name in variants] + [name for name in variants if name not in PAPER]
    return {name: titles.get(name, BEYOND) for name in ordered}


def _zero_shot(checkpoint: str, model: str, source: _Source, profile: str) -> Row:
    key = f"zero-shot-{checkpoint}"
    named = model if checkpoint == "base" else f"{model} {CHECKPOINTS.get(checkpoint, checkpoint)}"
    name = f"{named[0].upper()}{named[1:]} (zero-shot)"
    return source.row(key, name, name, "", PAPER.get(key) if profile == "paper" else None)


def _variant(name: str, recipe: Mapping[str, Any], group: str, source: _Source, profile: str) -> Row:
    full = _name(name, recipe)
    label = full.removeprefix("Base + ") if group.startswith("Base ") else full
    paper = PAPER.get(name)
    same = paper and (paper.checkpoint, paper.rank) == (recipe["checkpoint"]["name"], recipe["lora"]["rank"])
    return source.row(name, full, label, group, paper if same and profile == "paper" else None)


def _name(variant: str, recipe: Mapping[str, Any]) -> str:
    if variant == "full-adapter":
        return "Full-Adapter"
    checkpoint = recipe["checkpoint"]["name"]
    name = f"{CHECKPOINTS.get(checkpoint, checkpoint)} + QLoRA-r{recipe['lora']['rank']}"
    return name if variant in PAPER else f"{variant}: {name}"


def _refined(recipe: Mapping[str, Any], recipes: Mapping[str, Mapping[str, Any]]) -> str:
    start = str(recipe["scst"]["start"])
    return f"{_name(start, recipes[start])} + SCST, {recipe['scst']['baseline']}"
