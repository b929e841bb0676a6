"""Draw the paper's Figure 3, the two-stage training pipeline, with the numbers of the recipes of this run.

Deliberate differences from the paper's drawing:

1. All numbers come from the recipes, so the figure cannot contradict the run.
2. Adapters appear in each part that the recipe's targets reach. The list of names behind Table II's counts also adapts
   the vision encoder, although section IV.A calls the encoder frozen; only its weights are frozen.
3. SCST trains only the decoder's adapters; the encoder and its adapters of step 1 stay as they are (IV.B).
4. The leave-one-out baseline has no greedy caption, so the figure has none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from captioning.params.recipe import ScstRecipe, ScstSettings, VariantRecipe
from captioning.params.sections import Lora
from captioning.report.figures import INK, QUIET, STYLE

FROZEN, ADAPTER = ("#dcebf7", "#5b9bcf"), ("#fbe0cc", "#d55e00")  # fill and edge of a box
PLAIN, OBJECTIVE = ("#f4f6f8", "#9aa5b1"), ("#d9f0e6", "#009e73")
WHITE = ("white", "#d5dbe2")
GRADIENT = ADAPTER[1]
LEGEND = {"frozen weights": FROZEN, "trained adapters": ADAPTER, "objective": OBJECTIVE, "data": PLAIN}
ADAPTED_PARTS = {"table2": "encoder decoder", "all-linear": "encoder projector decoder"}  # with adapters, by targets
ADAPTED_LAYERS = {"table2": "q k v o gate up down", "all-linear": "all linear layers"}
ADAPTED_LAYERS |= {"decoder": ADAPTED_LAYERS["table2"], "decoder-attention": "q k v o"}
REFERENCE_TEXTS = {"first": "reference C1", "all": "each of the\nreferences"}
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """A rectangle in the drawing's units (1/10 inch), by its lower left corner."""

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
    def middle(self) -> Point:
        return self.x + self.width / 2, self.y + self.height / 2


def draw_figure_3(recipe: VariantRecipe, refinement: ScstRecipe) -> Figure:
    """Draw Figure 3 from the recipes of SCST and of the variant that it starts from."""
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(12.4, 6.4))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 124), ylim=(0, 64))
        axes.set_axis_off()
        _draw_supervised(axes, recipe)
        _draw_self_critical(axes, recipe, refinement.scst)
        _draw_arrow(axes, (58.6, 41), (64.4, 41), GRADIENT, width=2.2)
        _draw_text(axes, (61.5, 44.6), "best\nadapter", 8, GRADIENT)
        for number, (name, colours) in enumerate(LEGEND.items()):
            x = 27 + 19 * number
            _draw_box(axes, Box(x, 2.1, 2.2, 1.5), colours=colours, rounding=0.4, linewidth=1.0)
            _draw_text(axes, (x + 3.2, 2.85), name, 8.5, QUIET, "left")
    return figure


def _draw_supervised(axes: Axes, recipe: VariantRecipe) -> None:
    lora, tune = recipe.lora, recipe.finetune
    title = f"Step 1: supervised QLoRA from the {recipe.checkpoint.name} checkpoint"
    _draw_panel(axes, Box(1.5, 6, 57, 56.5), title)
    image, prompt = Box(4, 44, 10.5, 8), Box(4, 27, 10.5, 8)
    encoder, projector, decoder = Box(19, 41.5, 18, 13), Box(41.5, 41.5, 14.5, 13), Box(19, 23.5, 37, 15)
    adapters = dict.fromkeys(ADAPTED_PARTS.get(lora.targets, "decoder").split(), "adapters")
    _draw_box(axes, image, "image")
    _draw_box(axes, prompt, f"prompt\n“{_shorten(tune.prompt, 14)}”", size=8)
    _draw_frozen(axes, encoder, "SigLIP encoder", "frozen", adapters.get("encoder", ""))
    _draw_frozen(axes, projector, "Projector", "frozen", adapters.get("projector", ""))
    _draw_frozen(axes, decoder, "Gemma decoder", "frozen, 4-bit NF4", f"adapters: {_describe_lora(lora)}")
    loss, reference = Box(19, 12, 19, 7), Box(42.5, 12, 13.5, 7)
    _draw_box(axes, loss, "cross-entropy\nof the caption", OBJECTIVE)
    _draw_box(axes, reference, REFERENCE_TEXTS.get(tune.captions, "a random\nreference"))
    _draw_arrow(axes, (image.right, 48), (encoder.x, 48))
    _draw_arrow(axes, (encoder.right, 48), (projector.x, 48))
    _draw_arrow(axes, (48.75, projector.y), (48.75, decoder.top))
    _draw_arrow(axes, (prompt.right, 31), (decoder.x, 31))
    _draw_arrow(axes, (24.5, decoder.y), (24.5, loss.top))
    _draw_arrow(axes, (32.5, loss.top), (32.5, decoder.y), GRADIENT, dashed=True)
    _draw_text(axes, (33.5, 21.25), "gradient, to the adapters only", 7.5, GRADIENT, "left")
    _draw_arrow(axes, (reference.x, 15.5), (loss.right, 15.5))
    steps = f"{tune.batch} × {tune.accumulation} = {tune.batch * tune.accumulation} captions a step"
    minimum = f", at least {tune.minimum_steps} steps" if tune.minimum_steps else ""
    length, rate = f"{_count(tune.epochs, 'epoch')}{minimum}", _format_rate(tune.learning_rate)
    _draw_text(axes, (30, 8.8), f"{steps} · {length} · AdamW · learning rate {rate}")


def _draw_self_critical(axes: Axes, recipe: VariantRecipe, scst: ScstSettings) -> None:
    is_greedy = scst.baseline == "greedy"
    _draw_panel(axes, Box(64.5, 6, 58, 56.5), "Step 2: self-critical sequence training (SCST)")
    image, policy = Box(66.5, 44, 9.5, 8), Box(80, 38.5, 18, 19)
    baseline, samples = Box(103, 49.5, 15.5, 8), Box(103, 38.5, 15.5, 8)
    _draw_box(axes, image, "image,\nprompt")
    adapters = f"decoder adapters\nof step 1, r = {recipe.lora.rank}"
    _draw_frozen(axes, policy, f"{recipe.checkpoint.name} checkpoint", "frozen", adapters, height=7.5)
    _draw_box(axes, samples, f"{_count(scst.samples, 'sampled caption')}\nT = {scst.temperature:g}")
    references, reward = Box(84, 25, 14, 8), Box(103, 25, 15.5, 8)
    loss, advantage = Box(84, 11.8, 14, 8), Box(103, 11.8, 15.5, 8)
    _draw_box(axes, references, "all\nreferences")
    _draw_box(axes, reward, "reward r\nCIDEr-D", OBJECTIVE)
    formula = "A = r − r(greedy)" if is_greedy else "A = r − mean of\nthe other samples"
    _draw_box(axes, advantage, f"advantage\n{formula}", OBJECTIVE, 8)
    _draw_box(axes, loss, "loss\n−A · log p", OBJECTIVE)
    _draw_arrow(axes, (image.right, 48), (policy.x, 48))
    _draw_arrow(axes, (policy.right, 42.5), (samples.x, 42.5))
    _draw_arrow(axes, (110.75, samples.y), (110.75, reward.top))
    if is_greedy:
        _draw_box(axes, baseline, "greedy caption\n(baseline)")
        _draw_arrow(axes, (policy.right, 53.5), (baseline.x, 53.5))
        _draw_path(axes, [(baseline.right, 53.5), (120.7, 53.5), (120.7, 29), (reward.right, 29)], INK)
    _draw_arrow(axes, (references.right, 29), (reward.x, 29))
    _draw_arrow(axes, (110.75, reward.y), (110.75, advantage.top))
    _draw_arrow(axes, (advantage.x, 15.8), (loss.right, 15.8))
    _draw_path(axes, [(loss.x, 15.8), (81.8, 15.8), (81.8, policy.y)], GRADIENT, dashed=True)
    _draw_text(axes, (80.8, 26.5), "gradient,\nto the decoder's\nadapters only", 7.5, GRADIENT, "right")
    images = f"{scst.images:,} images" if scst.images else "all training images"
    epochs, rate = _count(scst.epochs, "epoch"), _format_rate(scst.learning_rate)
    _draw_text(axes, (93.5, 8.8), f"{images} · {epochs} · {scst.batch} images a step · learning rate {rate}")


def _draw_panel(axes: Axes, box: Box, title: str) -> None:
    _draw_box(axes, box, colours=WHITE, rounding=1.2)
    _draw_text(axes, (box.x + 2, box.top - 2.4), title, 10.5, align="left", bold=True)


def _draw_frozen(axes: Axes, box: Box, name: str, state: str, adapters: str, height: float = 0.0) -> None:
    """Draw a frozen part, with the box of its adapters, if any, at its bottom; `height`: of that box."""
    _draw_box(axes, box, colours=FROZEN)
    height = height or (6.2 if "\n" in adapters else 4.2)
    centre = box.top - (box.height - (height + 1 if adapters else 0)) / 2
    _draw_text(axes, (box.middle[0], centre + 1.4), name, 9.5, bold=True)
    _draw_text(axes, (box.middle[0], centre - 1.5), f"❄ {state}", 8, "#2a6496")
    if adapters:
        _draw_box(axes, Box(box.x + 1.2, box.y + 1.2, box.width - 2.4, height), adapters, ADAPTER, 8)


def _draw_box(
    axes: Axes,
    box: Box,
    text: str = "",
    colours: tuple[str, str] = PLAIN,
    size: float = 8.5,
    rounding: float = 0.8,
    linewidth: float = 1.2,
) -> None:
    style: Any = {"facecolor": colours[0], "edgecolor": colours[1], "linewidth": linewidth}
    style["boxstyle"] = f"round,pad=0,rounding_size={rounding}"
    axes.add_patch(FancyBboxPatch((box.x, box.y), box.width, box.height, **style))
    if text:
        _draw_text(axes, box.middle, text, size)


def _draw_arrow(
    axes: Axes, start: Point, end: Point, colour: str = INK, dashed: bool = False, width: float = 1.3
) -> None:
    style = {"arrowstyle": "-|>,head_width=0.22,head_length=0.45", "shrinkA": 0, "shrinkB": 1}
    style |= {"color": colour, "linewidth": width, "linestyle": (0, (4, 2)) if dashed else "solid"}
    axes.annotate("", end, start, arrowprops=style)


def _draw_path(axes: Axes, points: Sequence[Point], colour: str, dashed: bool = False) -> None:
    xs, ys = zip(*points[:-1], strict=True)
    axes.plot(xs, ys, color=colour, linewidth=1.3, linestyle=(0, (4, 2)) if dashed else "solid")
    _draw_arrow(axes, points[-2], points[-1], colour, dashed)


def _draw_text(
    axes: Axes, point: Point, text: str, size: float = 8.5, colour: str = INK, align: str = "center", bold: bool = False
) -> None:
    style: Any = {"fontsize": size, "color": colour, "fontweight": "bold" if bold else "normal"}
    axes.text(*point, text, ha=align, va="center", linespacing=1.25, **style)


def _describe_lora(lora: Lora) -> str:
    scale = " (rsLoRA)" if lora.rslora else ""
    layers = ADAPTED_LAYERS.get(lora.targets, lora.targets)
    return f"LoRA r = {lora.rank}, α = {lora.alpha:g}{scale}\non {layers}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _format_rate(rate: float) -> str:
    return f"{rate:g}".replace("e-0", "e-")


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
