"""Table II: its rows, their order and grouping, and its forms as Markdown, CSV and JSON.

Source: the paper's Table II. Deliberate differences:

1. Beside CIDEr stand BLEU-4, METEOR, ROUGE-L, length, the share of captions that ended and, where a world was drawn,
   how often scene and colour are named right. With several seeds, scores are mean ± standard deviation.
2. After the paper's rows come SCST, further variants and zero-shot rows, and yardsticks that involve no model.
3. Labels take rank and checkpoint from the recipe. The paper's number stands beside ours only where both agree with it.
4. Nothing is set in bold as best: one run cannot rank.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from captioning.runlog import UserError

MODELS = {"paper": "PaliGemma", "miniature": "miniature"}
CHECKPOINTS = {"base": "Base", "mix": "Mix", "cococap": "COCOCap", "rsvqa-lr": "RSVQA/lr"}
YARDSTICKS = {"constant-caption": "One constant caption", "human-caption": "Reference C1 against the others",
              "nearest-image": "Caption of the nearest training image"}  # fmt: skip
SCORES = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "length")
SHARES = {"ended": "ended %", "scene": "scene %", "colour": "colour %"}  # 0 to 1 in the scores, percent in the table
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
    """One row. `name` says all, `label` what its group's title leaves open; `deviation` is None with one seed."""

    key: str
    name: str
    label: str
    group: str
    scores: Mapping[str, float]
    deviation: Mapping[str, float] | None
    seeds: int
    parameters: int | None = None
    share: float | None = None  # percent of all parameters, adapters counted
    paper: PaperRow | None = None


@dataclass(frozen=True)
class Table:
    """Table II with the protocol of its scores."""

    rows: tuple[Row, ...]
    profile: str
    signature: str
    images: int
    seeds: tuple[int, ...]

    @property
    def notes(self) -> list[str]:
        """What a reader must know to read the numbers."""
        return [f"Protocol: {self.signature}; {self.images:,} test images. CIDEr, BLEU, METEOR and ROUGE-L times 100; "
                "length in words; share: trainable of all parameters.", noise(self.seeds)]  # fmt: skip


def build_table(
    scores: Mapping[str, Any], training: Mapping[str, Mapping[str, Any]], recipes: Mapping[str, Mapping[str, Any]],
    zero_shot: Sequence[str], profile: str, seeds: Sequence[int],
) -> Table:  # fmt: skip
    """Every row of the run, in the paper's order.

    `scores`: data/scores/scores.json. `training`: counts of trainable parameters by variant, and of `scst`.
    `recipes`: data/recipes/*.json by variant in the order of params.yaml, `scst` among them. Raises `UserError` where a
    row has no scores.
    """
    model = MODELS.get(profile, profile)
    rows = [_zero_shot(checkpoint, model, scores, profile) for checkpoint in zero_shot]
    variants = {name: recipe for name, recipe in recipes.items() if name != "scst"}
    groups = _groups(variants, model)
    rows += [_variant(name, recipe, groups[name], scores, training, profile) for name, recipe in variants.items()]
    if "scst" in recipes:
        start = str(recipes["scst"]["scst"]["start"])
        name = f"{_name(start, recipes[start])} + SCST"
        rows.append(_row("scst", name, name, BEYOND, scores, training))
    rows += [_row(key, name, name, YARDSTICK_GROUP, scores, {}) for key, name in YARDSTICKS.items()
             if key in scores["rows"]]  # fmt: skip
    order = ["", *dict.fromkeys(groups.values()), BEYOND, YARDSTICK_GROUP]
    rows.sort(key=lambda row: (order.index(row.group), row.group == BEYOND and row.key != "scst"))
    return Table(tuple(rows), profile, str(scores["signature"]), int(scores["images"]), tuple(seeds))


def noise(seeds: Sequence[int]) -> str:
    """What may be concluded from as many seeds."""
    if len(seeds) == 1:
        return "One seed a variant: run-to-run noise is not measured, so no claim that one row beats another stands."
    return (f"Mean ± standard deviation over {len(seeds)} seeds; a difference within these deviations is noise. Rows "
            "without ± have no seed.")  # fmt: skip


def display(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and rows as texts; a row of one text is a group's title. Columns without any value are left out."""
    shares = {key: title for key, title in SHARES.items() if any(key in row.scores for row in table.rows)}
    beside = any(row.paper for row in table.rows)
    header = ["Model", *SCORES[:1], *(["CIDEr, paper"] if beside else []), *SCORES[1:], *shares.values(),
              "trainable", *(["trainable, paper"] if beside else []), "share %",
              *(["share %, paper"] if beside else [])]  # fmt: skip
    rows: list[list[str]] = []
    group = ""
    for row in table.rows:
        if row.group != group:
            group = row.group
            rows.append([group])
        paper = row.paper
        rows.append([
            row.label, _score(row, "CIDEr"), *([f"{paper.CIDEr:.1f}" if paper else "–"] if beside else []),
            *(_score(row, key) for key in SCORES[1:]), *(_score(row, key, 100) for key in shares),
            count(row.parameters), *([(paper and paper.parameters) or "–"] if beside else []),
            "–" if row.share is None else f"{row.share:.3g}", *([(paper and paper.share) or "–"] if beside else []),
        ])  # fmt: skip
    return header, rows


def markdown(table: Table) -> str:
    """The table as aligned Markdown, a title row before each group, its notes after it."""
    header, rows = display(table)
    full = [header, *([f"**{row[0]}**"] + [""] * (len(header) - 1) if len(row) == 1 else row for row in rows)]
    widths = [max(len(row[k]) for row in full) for k in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in
                               enumerate(zip(row, widths, strict=True))) + " |" for row in full]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (w + 1) + ("-" if k == 0 else ":") for k, w in enumerate(widths)) + "|")
    return "\n".join([*lines, "", *(f"{note}\n" for note in table.notes)])


def csv_text(table: Table) -> str:
    """The table as CSV, unrounded; each line carries the number of seeds and images, and the protocol."""
    keys = sorted({key for row in table.rows for key, value in row.scores.items() if isinstance(value, int | float)})
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "name", "group", *keys, *(f"{key} deviation" for key in keys), "trainable_parameters",
                     "share", "paper_CIDEr", "seeds", "images", "protocol"])  # fmt: skip
    for row in table.rows:
        deviation = row.deviation or {}
        writer.writerow([
            row.key, row.name, row.group, *(row.scores.get(key) for key in keys), *(deviation.get(key) for key in keys),
            row.parameters, row.share, row.paper and row.paper.CIDEr, row.seeds, table.images, protocol(table, row),
        ])  # fmt: skip
    return file.getvalue()


def protocol(table: Table, row: Row) -> str:
    """How a row was scored: the table's signature; a yardstick decodes nothing, C1 has one reference less."""
    if row.group != YARDSTICK_GROUP:
        return table.signature
    kept = [part for part in table.signature.split("|") if part != "greedy" and not part.startswith("max_tokens")]
    fewer = {"refs:5": "refs:4"} if row.key == "human-caption" else {}
    return "|".join(fewer.get(part, part) for part in kept)


def scores_csv(table: Table) -> str:
    """The main scores, a line a row, for an interactive plot."""
    lines = [",".join(["row", *SCORES])]
    lines += [",".join([row.key, *(f"{row.scores[key]:.4f}" for key in SCORES)]) for row in table.rows]
    return "\n".join(lines) + "\n"


def json_text(table: Table) -> str:
    """The table as JSON, unrounded."""
    return json.dumps({**asdict(table), "notes": table.notes}, indent=1, ensure_ascii=False) + "\n"


def count(parameters: int | None) -> str:
    """A number of parameters: three digits of millions, exact below a million."""
    if parameters is None:
        return "–"
    return f"{parameters / 1e6:.3g}M" if parameters >= 1_000_000 else f"{parameters:,}"


def _groups(variants: Mapping[str, Mapping[str, Any]], model: str) -> dict[str, str]:
    """The group's title of each variant; the paper's own titles for the paper's own names."""
    ranks = {recipe["lora"]["rank"] for name, recipe in variants.items() if name in ("mix", "cococap", "rsvqa-lr")}
    pretrained = "Pre-trained checkpoints + QLoRA" + (f"-r{ranks.pop()}" if len(ranks) == 1 else "")
    titles = {"full-adapter": ""} | dict.fromkeys(("base-r4", "base-r8", "base-r16"), f"Base {model} + QLoRA")
    titles |= dict.fromkeys(("mix", "cococap", "rsvqa-lr"), pretrained)
    ordered = [name for name in PAPER if name in variants] + [name for name in variants if name not in PAPER]
    return {name: titles.get(name, BEYOND) for name in ordered}


def _zero_shot(checkpoint: str, model: str, scores: Mapping[str, Any], profile: str) -> Row:
    key = f"zero-shot-{checkpoint}"
    named = model if checkpoint == "base" else f"{model} {CHECKPOINTS.get(checkpoint, checkpoint)}"
    name = f"{named[0].upper()}{named[1:]} (zero-shot)"
    paper = PAPER.get(key) if profile == "paper" else None
    return _row(key, name, name, "" if key in PAPER else BEYOND, scores, {}, paper)


def _variant(
    name: str, recipe: Mapping[str, Any], group: str, scores: Mapping[str, Any], training: Mapping[str, Any],
    profile: str,
) -> Row:  # fmt: skip
    full = _name(name, recipe)
    label = full.removeprefix("Base + ") if group.startswith("Base ") else full
    paper = PAPER.get(name)
    same = paper and (paper.checkpoint, paper.rank) == (recipe["checkpoint"]["name"], recipe["lora"]["rank"])
    return _row(name, full, label, group, scores, training, paper if same and profile == "paper" else None)


def _name(variant: str, recipe: Mapping[str, Any]) -> str:
    if variant == "full-adapter":
        return "Full-Adapter"
    checkpoint = recipe["checkpoint"]["name"]
    name = f"{CHECKPOINTS.get(checkpoint, checkpoint)} + QLoRA-r{recipe['lora']['rank']}"
    return name if variant in PAPER else f"{variant}: {name}"


def _row(
    key: str, name: str, label: str, group: str, scores: Mapping[str, Any], training: Mapping[str, Any],
    paper: PaperRow | None = None,
) -> Row:  # fmt: skip
    if key not in scores["rows"]:
        raise UserError(f"data/scores/scores.json: no row '{key}'; run the stage evaluate again")
    entry, counts = scores["rows"][key], training.get(key, {})
    return Row(key, name, label, group, entry["mean"], entry.get("deviation"), len(entry["seeds"]),
               counts.get("trainable_parameters"), counts.get("share"), paper)  # fmt: skip


def _score(row: Row, key: str, times: float = 1.0) -> str:
    value, deviation = row.scores.get(key), (row.deviation or {}).get(key)
    if value is None:
        return "–"
    return f"{times * value:.1f}" + (f" ± {times * deviation:.1f}" if deviation is not None else "")
