"""The rehearsal's report: seconds, memory and prediction by stage, SCST's seconds by part, sizes of adapters."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.watch import CommandPart
from captioning.adapters.lora import count_parameters
from captioning.limits.activations import meta_model
from captioning.limits.memory import Need, finetune_needs, generation_needs, longest_suffix
from captioning.limits.scst import scst_needs
from captioning.paligemma.model import load_processor
from captioning.params.recipe import ScstRecipe, VariantRecipe, read_any_recipe, read_recipe
from captioning.report.table_text import format_markdown

TRAINED = ("base-r16", "full-adapter")
TABLE_II = {  # variant: trainable weights, share in percent (facts of the paper's Table II)
    "base-r4": (5_649_408, 0.1929), "base-r8": (11_298_816, 0.3850), "base-r16": (22_597_632, 0.7670),
    "full-adapter": (14_179_072, 0.4827),
}  # fmt: skip
UNTRAINED_RANKS = {"base-r4": 4, "base-r8": 8}  # not trained here
CLOSING_LINE = re.compile(r"^\w+: [\d.]+ s, (?P<memory>[\d.]+) GB(, (?P<gpu>[\d.]+) GB of the GPU)?$")
MAPPED = "embeddings, SigLIP and projector"  # a CPU maps the checkpoint's file


def report(
    copy: Path, parts: Sequence[CommandPart], captions: Sequence[str], device: str, against_paper: bool
) -> tuple[int, str]:
    """Return the exit status (1: an adapter has another size than the paper's) and the text."""
    needs = {part.name: largest_need(copy, part.name, captions, device) for part in parts}
    lines = [memory_table(parts, needs), "", scst_parts(copy), ""]
    counts = adapter_sizes(copy)
    lines += [f"{name}: {count:,} trainable, {share:.4f} %" for name, (count, share) in counts.items()]
    wrong = {name for name, count in counts.items() if against_paper and count != TABLE_II[name]}
    if against_paper:
        lines.append(f"not Table II's: {', '.join(sorted(wrong))}" if wrong else "the sizes of Table II, to the weight")
    seconds = sum(part.seconds for part in parts)
    memory = max(part.resident for part in parts) / 2**30
    lines.append(f"in all {seconds / 60:.1f} min, at most {memory:.1f} GiB a process")
    return int(bool(wrong)), "\n".join(lines)


def memory_table(parts: Sequence[CommandPart], needs: dict[str, Need | None]) -> str:
    """Return a row for each stage. `counted` is comparable with the prediction: on a CPU, memory of no file and the
    weights that are mapped; on a GPU, torch's memory."""
    header, lines = ["stage", "seconds", "resident, GB", "counted, GB", "predicted, GB", "of it margin"], []
    for part in parts:
        need = needs[part.name]
        resident = max(part.resident, int(1e9 * closing(part).get("memory", 0)))
        row = [part.name, f"{part.seconds:.0f}", f"{resident / 1e9:.2f}"]
        if need is not None:
            gpu = closing(part).get("gpu")
            counted = part.private / 1e9 + need.fixed[MAPPED] / 1e9 if gpu is None else gpu
            row += [f"{counted:.2f}", f"{need.total_bytes / 1e9:.2f}", f"{need.bytes_by_part['margin'] / 1e9:.2f}"]
        lines.append([*row, "", "", ""][: len(header)])
    return format_markdown(header, lines)


def closing(part: CommandPart) -> dict[str, float]:
    """Return the memory that a stage reports at its end, in GB."""
    matches = [match for line in part.lines if (match := CLOSING_LINE.match(line))]
    values = matches[-1].groupdict() if matches else {}
    return {name: float(value) for name, value in values.items() if value is not None}


def largest_need(copy: Path, stage: str, captions: Sequence[str], device: str) -> Need | None:
    """Return the largest predicted need of a stage, or None if it loads no model."""
    name, _, item = stage.partition("@")
    checkpoint = copy / "models/checkpoints/base"
    recipes, row = copy / "data/recipes", item.rpartition("-")[0]
    if name == "qlora-train":
        recipe = read_recipe(recipes / f"{row}.json", VariantRecipe)
        needs = finetune_needs(checkpoint, recipe, longest_suffix(load_processor(checkpoint), captions), device)
    elif name == "scst":
        needs = scst_needs(checkpoint, read_recipe(recipes / f"scst-{row}.json", ScstRecipe), device)
    elif name in ("zero-shot", "generate", "generate-scst"):
        prefix = "scst-" if name == "generate-scst" else ""
        recipe = read_any_recipe(recipes / f"{TRAINED[0] if name == 'zero-shot' else prefix + row}.json")
        tokens = read_recipe(next(recipes.glob("scst-*.json")), ScstRecipe).scst.maximum_tokens
        lora = None if name == "zero-shot" else recipe.lora
        needs = generation_needs(checkpoint, recipe.prompt, tokens, recipe.machine, device, lora)
    else:
        return None
    return max(needs, key=lambda need: need.total_bytes)


def scst_parts(copy: Path) -> str:
    """Return the seconds of SCST's steps by part."""
    lines = []
    for path in sorted((copy / ".cache/timings").glob("scst-*.csv")):
        with path.open(encoding="utf-8") as file:
            steps = list(csv.DictReader(file))
        parts = {name: sum(float(step[name] or 0) for step in steps) for name in steps[0]}
        text = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in parts.items())
        lines.append(f"{path.stem}: {len(steps)} steps: {text}")
    return "\n".join(lines)


def adapter_sizes(copy: Path) -> dict[str, tuple[int, float]]:
    """Return trainable weights and their share in percent, of trained adapters and of other ranks."""
    sizes: dict[str, Any] = {name: _json(copy / f"data/training/{name}-1.json") for name in TRAINED}
    for name, rank in UNTRAINED_RANKS.items():
        lora = read_any_recipe(copy / f"data/recipes/{TRAINED[0]}.json").lora.model_copy(update={"rank": rank})
        sizes[name] = count_parameters(meta_model(copy / "models/checkpoints/base", "bfloat16", "cpu", lora).model)
    return {name: (int(size["trainable_parameters"]), round(size["share"], 4)) for name, size in sorted(sizes.items())}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
