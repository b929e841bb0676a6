"""What the rehearsal prints: seconds and memory by stage beside the prediction, SCST by part, sizes of adapters."""

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.watch import Part
from captioning.adapters.lora import count_parameters
from captioning.limits.activations import meta_model
from captioning.limits.memory import Need, finetune_needs, generation_needs, longest_suffix
from captioning.limits.scst import scst_needs
from captioning.paligemma.model import load_processor
from captioning.params.recipe import ScstRecipe, VariantRecipe, read_any_recipe, read_recipe

TRAINED = ("base-r16", "full-adapter")
TABLE_II = {  # variant: trainable weights, share in percent (facts of the paper's Table II)
    "base-r4": (5_649_408, 0.1929), "base-r8": (11_298_816, 0.3850), "base-r16": (22_597_632, 0.7670),
    "full-adapter": (14_179_072, 0.4827),
}  # fmt: skip
RANKS = {"base-r4": 4, "base-r8": 8}  # adapted without being trained
CLOSING = re.compile(r"^\w+: [\d.]+ s, (?P<memory>[\d.]+) GB(, (?P<gpu>[\d.]+) GB of the GPU)?$")
MAPPED = "embeddings, SigLIP and projector"  # on a CPU read from the checkpoint's file where it lies


def report(
    copy: Path, parts: Sequence[Part], captions: Sequence[str], device: str, against_paper: bool
) -> tuple[int, str]:
    """Exit status, 1 where an adapter is not the paper's, and the text."""
    needs = {part.name: largest_need(copy, part.name, captions, device) for part in parts}
    lines = [memory_table(parts, needs), "", scst_parts(copy), ""]
    counts = adapter_sizes(copy)
    lines += [f"{name}: {count:,} trainable, {share:.4f} %" for name, (count, share) in counts.items()]
    wrong = {name for name, count in counts.items() if against_paper and count != TABLE_II[name]}
    if against_paper:
        lines.append(f"not Table II's: {', '.join(sorted(wrong))}" if wrong else "the sizes of Table II, to the weight")
    seconds = sum(part.seconds for part in parts)
    lines.append(
        f"in all {seconds / 60:.1f} min, at most {max(part.resident for part in parts) / 2**30:.1f} GiB a process"
    )
    return int(bool(wrong)), "\n".join(lines)


def memory_table(parts: Sequence[Part], needs: dict[str, Need | None]) -> str:
    """A row a stage. Beside the prediction stands what it predicts: on a CPU, what belongs to no file and the weights
    that stay in theirs; on a GPU, what torch had of it."""
    lines = [
        "| stage | seconds | resident, GB | counted, GB | predicted, GB | of it margin |",
        "|---|---|---|---|---|---|",
    ]
    for part in parts:
        need = needs[part.name]
        resident = max(part.resident, int(1e9 * closing(part).get("memory", 0)))
        row = [part.name, f"{part.seconds:.0f}", f"{resident / 1e9:.2f}"]
        if need is not None:
            gpu = closing(part).get("gpu")
            counted = part.private / 1e9 + need.fixed[MAPPED] / 1e9 if gpu is None else gpu
            row += [f"{counted:.2f}", f"{need.total_bytes / 1e9:.2f}", f"{need.bytes_by_part['margin'] / 1e9:.2f}"]
        lines.append(f"| {' | '.join([*row, '', '', ''][:6])} |")
    return "\n".join(lines)


def closing(part: Part) -> dict[str, float]:
    """What a stage says of its memory at its end, in GB."""
    found = [match for line in part.lines if (match := CLOSING.match(line))]
    told = found[-1].groupdict() if found else {}
    return {name: float(value) for name, value in told.items() if value is not None}


def largest_need(copy: Path, stage: str, captions: Sequence[str], device: str) -> Need | None:
    """The prediction for the largest thing that a stage does; None for one that loads no model."""
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
    """Seconds of SCST's steps by part."""
    lines = []
    for path in sorted((copy / ".cache/timings").glob("scst-*.csv")):
        with path.open(encoding="utf-8") as file:
            steps = list(csv.DictReader(file))
        parts = {name: sum(float(step[name] or 0) for step in steps) for name in steps[0]}
        told = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in parts.items())
        lines.append(f"{path.stem}: {len(steps)} steps: {told}")
    return "\n".join(lines)


def adapter_sizes(copy: Path) -> dict[str, tuple[int, float]]:
    """Trainable weights and their share in percent: of what was trained, and of the ranks that were not."""
    found = {name: _json(copy / f"metrics/training/{name}-1.json") for name in TRAINED}
    for name, rank in RANKS.items():
        lora = read_any_recipe(copy / f"data/recipes/{TRAINED[0]}.json").lora.model_copy(update={"rank": rank})
        found[name] = count_parameters(meta_model(copy / "models/checkpoints/base", "bfloat16", "cpu", lora).model)
    return {name: (int(of["trainable_parameters"]), round(of["share"], 4)) for name, of in sorted(found.items())}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
