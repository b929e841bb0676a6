"""The paper's Figure 3, the two-stage training pipeline, drawn from the numbers of the recipes that were run.

Deliberate differences from the paper's drawing:

1. Every number comes from the recipe, so the figure cannot contradict the run.
2. Adapters appear in each part that the recipe's targets really reach. The name list behind Table II's counts
   adapts the vision encoder too, although section IV.A calls the encoder frozen; what is frozen there is its weights.
3. SCST trains the decoder's adapters alone and keeps the encoder, with any adapters of step 1, as it is (IV.B).
4. With the leave-one-out baseline there is no greedy caption, and none is drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from captioning.report.figures import INK, QUIET, STYLE

FROZEN, FROZEN_EDGE = "#dcebf7", "#5b9bcf"
ADAPTER, ADAPTER_EDGE = "#fbe0cc", "#d55e00"
PLAIN, PLAIN_EDGE = "#f4f6f8", "#9aa5b1"
OBJECTIVE, OBJECTIVE_EDGE = "#d9f0e6", "#009e73"
REACH = {  # the parts in which the adapters of a target list lie, as peft matches names
    "table2": ("encoder", "decoder"), "all-linear": ("encoder", "projector", "decoder"),
    "decoder": ("decoder",), "decoder-attention": ("decoder",),
}  # fmt: skip
LAYERS = {"table2": "q k v o gate up down", "all-linear": "all linear layers", "decoder": "q k v o gate up down",
          "decoder-attention": "q k v o"}  # fmt: skip


@dataclass(frozen=True)
class Box:
    """A rectangle in the drawing's units (1/10 inch), by its left lower corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def top(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


def two_stage_pipeline(recipe: Mapping[str, Any], scst_recipe: Mapping[str, Any]) -> Figure:
    """Figure 3 from two of `data/recipes/*.json`: SCST's start variant's, and SCST's.

    Raises `KeyError` on a missing key.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(12.4, 6.4))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 124), ylim=(0, 64))
        axes.set_axis_off()
        _supervised(axes, recipe)
        _self_critical(axes, recipe, scst_recipe["scst"])
        _arrow(axes, (58.6, 41), (64.4, 41), colour=ADAPTER_EDGE, width=2.2)
        _text(axes, (61.5, 44.6), "best\nadapter", size=8, colour=ADAPTER_EDGE)
        _legend(axes)
    return figure


def _supervised(axes: Axes, recipe: Mapping[str, Any]) -> None:
    lora, tune = recipe["lora"], recipe["finetune"]
    _panel(axes, Box(1.5, 6, 57, 56.5), f"Step 1: supervised QLoRA from the {recipe['checkpoint']['name']} checkpoint")
    image, prompt = Box(4, 44, 10.5, 8), Box(4, 27, 10.5, 8)
    encoder, projector, decoder = Box(19, 41.5, 18, 13), Box(41.5, 41.5, 14.5, 13), Box(19, 23.5, 37, 15)
    reached = REACH.get(lora["targets"], ("decoder",))
    _box(axes, image, "image")
    _box(axes, prompt, f"prompt\n“{_short(tune['prompt'], 14)}”", size=8)
    _frozen(axes, encoder, "SigLIP encoder", "frozen", "adapters" if "encoder" in reached else "")
    _frozen(axes, projector, "Projector", "frozen", "adapters" if "projector" in reached else "")
    _frozen(axes, decoder, "Gemma decoder", "frozen, 4-bit NF4", f"adapters: {_adapter(lora)}\n{_layers(lora)}")
    loss, reference = Box(19, 12, 19, 7), Box(42.5, 12, 13.5, 7)
    _box(axes, loss, "cross-entropy\nof the caption", OBJECTIVE, OBJECTIVE_EDGE)
    _box(axes, reference, {"first": "reference C1", "all": "each of five\nreferences"}.get(
        tune["captions"], "one of five\nreferences"))  # fmt: skip
    _arrow(axes, (image.right, 48), (encoder.x, 48))
    _arrow(axes, (encoder.right, 48), (projector.x, 48))
    _arrow(axes, (48.75, projector.y), (48.75, decoder.top))
    _arrow(axes, (prompt.right, 31), (decoder.x, 31))
    _arrow(axes, (24.5, decoder.y), (24.5, loss.top))
    _arrow(axes, (32.5, loss.top), (32.5, decoder.y), colour=ADAPTER_EDGE, dashed=True)
    _text(axes, (33.5, 21.25), "gradient, to the adapters only", size=7.5, colour=ADAPTER_EDGE, align="left")
    _arrow(axes, (reference.x, 15.5), (loss.right, 15.5))
    steps = f"{tune['batch']} × {tune['accumulation']} = {tune['batch'] * tune['accumulation']} captions a step"
    _text(axes, (30, 8.8), f"{steps} · {_count(tune['epochs'], 'epoch')} · AdamW · learning rate "
          f"{_rate(tune['learning_rate'])}", size=8.5)  # fmt: skip


def _self_critical(axes: Axes, recipe: Mapping[str, Any], scst: Mapping[str, Any]) -> None:
    greedy = scst["baseline"] == "greedy"
    _panel(axes, Box(64.5, 6, 58, 56.5), "Step 2: self-critical sequence training (SCST)")
    image, policy = Box(66.5, 44, 9.5, 8), Box(80, 38.5, 18, 19)
    baseline, samples = Box(103, 49.5, 15.5, 8), Box(103, 38.5, 15.5, 8)
    _box(axes, image, "image,\nprompt")
    adapters = f"decoder adapters\nof step 1, r = {recipe['lora']['rank']}"
    _frozen(axes, policy, f"{recipe['checkpoint']['name']} checkpoint", "frozen", adapters, chip=7.5)
    _box(axes, samples, f"{_count(scst['samples'], 'sampled caption')}\nT = {scst['temperature']:g}")
    references, reward = Box(84, 25, 14, 8), Box(103, 25, 15.5, 8)
    loss, advantage = Box(84, 11.8, 14, 8), Box(103, 11.8, 15.5, 8)
    _box(axes, references, "five\nreferences")
    _box(axes, reward, "reward r\nCIDEr-D", OBJECTIVE, OBJECTIVE_EDGE)
    _box(axes, advantage, "advantage\nA = r − r(greedy)" if greedy else "advantage\nA = r − mean of\nthe other samples",
         OBJECTIVE, OBJECTIVE_EDGE, size=8)  # fmt: skip
    _box(axes, loss, "loss\n−A · log p", OBJECTIVE, OBJECTIVE_EDGE)
    _arrow(axes, (image.right, 48), (policy.x, 48))
    _arrow(axes, (policy.right, 42.5), (samples.x, 42.5))
    _arrow(axes, (110.75, samples.y), (110.75, reward.top))
    if greedy:
        _box(axes, baseline, "greedy caption\n(baseline)")
        _arrow(axes, (policy.right, 53.5), (baseline.x, 53.5))
        _path(axes, [(baseline.right, 53.5), (120.7, 53.5), (120.7, 29), (reward.right, 29)], INK)
    _arrow(axes, (references.right, 29), (reward.x, 29))
    _arrow(axes, (110.75, reward.y), (110.75, advantage.top))
    _arrow(axes, (advantage.x, 15.8), (loss.right, 15.8))
    _path(axes, [(loss.x, 15.8), (81.8, 15.8), (81.8, policy.y)], ADAPTER_EDGE, dashed=True)
    gradient = "gradient,\nto the decoder's\nadapters only"
    _text(axes, (80.8, 26.5), gradient, size=7.5, colour=ADAPTER_EDGE, align="right")
    images = f"{scst['images']:,} images" if scst["images"] else "all training images"
    _text(axes, (93.5, 8.8), f"{images} · {_count(scst['epochs'], 'epoch')} · {scst['batch']} images a step · "
          f"learning rate {_rate(scst['learning_rate'])}", size=8.5)  # fmt: skip


def _legend(axes: Axes) -> None:
    entries = (("frozen weights", FROZEN, FROZEN_EDGE), ("trained adapters", ADAPTER, ADAPTER_EDGE),
               ("objective", OBJECTIVE, OBJECTIVE_EDGE), ("data", PLAIN, PLAIN_EDGE))  # fmt: skip
    for number, (name, fill, edge) in enumerate(entries):
        x = 27 + 19 * number
        axes.add_patch(FancyBboxPatch((x, 2.1), 2.2, 1.5, boxstyle="round,pad=0,rounding_size=0.4", facecolor=fill,
                                      edgecolor=edge, linewidth=1.0))  # fmt: skip
        _text(axes, (x + 3.2, 2.85), name, size=8.5, align="left", colour=QUIET)


def _panel(axes: Axes, box: Box, title: str) -> None:
    axes.add_patch(FancyBboxPatch((box.x, box.y), box.width, box.height, boxstyle="round,pad=0,rounding_size=1.2",
                                  facecolor="white", edgecolor="#d5dbe2", linewidth=1.2))  # fmt: skip
    _text(axes, (box.x + 2, box.top - 2.4), title, size=10.5, align="left", bold=True)


def _box(axes: Axes, box: Box, text: str, fill: str = PLAIN, edge: str = PLAIN_EDGE, size: float = 8.5) -> None:
    axes.add_patch(FancyBboxPatch((box.x, box.y), box.width, box.height, boxstyle="round,pad=0,rounding_size=0.8",
                                  facecolor=fill, edgecolor=edge, linewidth=1.2))  # fmt: skip
    if text:
        _text(axes, box.middle, text, size=size)


def _frozen(axes: Axes, box: Box, name: str, state: str, adapters: str, chip: float = 0.0) -> None:
    """A frozen part with its name at the top and, where it has adapters, their box inside at the bottom."""
    _box(axes, box, "", FROZEN, FROZEN_EDGE)
    height = chip or (6.2 if "\n" in adapters else 4.2)
    centre = box.top - (box.height - (height + 1 if adapters else 0)) / 2
    _text(axes, (box.middle[0], centre + 1.4), name, size=9.5, bold=True)
    _text(axes, (box.middle[0], centre - 1.5), f"❄ {state}", size=8, colour="#2a6496")
    if adapters:
        _box(axes, Box(box.x + 1.2, box.y + 1.2, box.width - 2.4, height), adapters, ADAPTER, ADAPTER_EDGE, size=8)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str = INK, dashed: bool = False,
           width: float = 1.3) -> None:  # fmt: skip
    axes.annotate("", end, start, arrowprops={
        "arrowstyle": "-|>,head_width=0.22,head_length=0.45", "color": colour, "linewidth": width, "shrinkA": 0,
        "shrinkB": 1, "linestyle": (0, (4, 2)) if dashed else "solid"})  # fmt: skip


def _path(axes: Axes, points: Sequence[tuple[float, float]], colour: str, dashed: bool = False) -> None:
    xs, ys = zip(*points[:-1], strict=True)
    axes.plot(xs, ys, color=colour, linewidth=1.3, linestyle=(0, (4, 2)) if dashed else "solid")
    _arrow(axes, points[-2], points[-1], colour, dashed)


def _text(axes: Axes, at: tuple[float, float], text: str, size: float = 8.5, colour: str = INK, align: str = "center",
          bold: bool = False) -> None:  # fmt: skip
    axes.text(*at, text, fontsize=size, color=colour, ha=align, va="center", linespacing=1.25,
              fontweight="bold" if bold else "normal")  # fmt: skip


def _adapter(lora: Mapping[str, Any]) -> str:
    scale = " (rsLoRA)" if lora["rslora"] else ""
    return f"LoRA r = {lora['rank']}, α = {lora['alpha']:g}{scale}"


def _layers(lora: Mapping[str, Any]) -> str:
    return "on " + LAYERS.get(lora["targets"], str(lora["targets"]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _rate(rate: float) -> str:
    return f"{rate:g}".replace("e-0", "e-")


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
