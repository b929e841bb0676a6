"""Draw the paper's Figures 1, 2 and 4-7 and Table II as an image, and save figures. Figure 3 is in figure_3.py.

Figures are `Figure` objects, without pyplot's global state. Each is saved twice: PNG for documents, SVG for the page.
Deliberate differences from the paper:

1. Figure 1 counts the words of all captions; the paper does not say which captions it counted.
2. The same values give the same bytes: the ids in an SVG are salted with a constant, the files have no date and no
   program name, and a seed arranges the word cloud.
3. The colours are those of Okabe and Ito (2008), which colour-blind readers can distinguish.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image
from wordcloud import WordCloud

from captioning.base.files import atomic_file

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, VERMILION, GREEN = PALETTE[:3]
INK, QUIET, RULE = "#1c2430", "#5b6675", "#c9d0d9"  # text, secondary text, lines
RESOLUTION = 150  # dots per inch of the PNG
CLOUD_SEED = 1
MEAN_BAR: Any = {"marker": "|", "markersize": 16, "markeredgewidth": 2.2, "linestyle": "none"}  # of seeds
SMALL_IMAGE = 128  # pixels; smaller images are enlarged without interpolation
STYLE: Any = {"font.family": "DejaVu Sans", "font.size": 9.5, "text.color": INK, "lines.linewidth": 1.6}
STYLE |= {"axes.labelcolor": INK, "axes.edgecolor": RULE, "axes.spines.top": False, "axes.spines.right": False}
STYLE |= {"axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left"}
STYLE |= {"axes.grid": True, "axes.axisbelow": True, "grid.color": "#e8ecf1", "grid.linewidth": 0.8}
STYLE |= {"figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.12}
STYLE |= {"xtick.color": QUIET, "ytick.color": QUIET, "legend.frameon": False}
STYLE |= {"text.parse_math": False}  # a caption may contain a dollar sign


def save_figure(figure: Figure, path: Path) -> None:
    """Write `path` as PNG and, in the folder svg beside it, as SVG, with the same bytes in every run; `path` has no
    suffix."""
    png = {"format": "png", "dpi": RESOLUTION, "metadata": {"Software": None}}
    svg = {"format": "svg", "metadata": {"Date": None, "Creator": None}}
    with matplotlib.rc_context({"svg.hashsalt": "captioning", "svg.fonttype": "path"}):
        for folder, options in ((path.parent, png), (path.parent / "svg", svg)):
            with atomic_file(folder / f"{path.name}.{options['format']}") as partial:
                figure.savefig(partial, facecolor="white", **options)


def draw_caption_lengths(all_words: Sequence[int], without_stop_words: Sequence[int]) -> Figure:
    """Draw Figure 1: words per caption, with and without stop words; each sequence has one count for each caption.

    Raises `ValueError` if a sequence is empty.
    """
    if not len(all_words) or not len(without_stop_words):
        raise ValueError("no caption lengths to draw; each sequence needs one count for each caption")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.4), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        _draw_lengths(axes[0], np.asarray(all_words), "All words", BLUE)
        _draw_lengths(axes[1], np.asarray(without_stop_words), "Without stop words", VERMILION)
        axes[0].set_ylabel("captions")
    return figure


def _draw_lengths(axes: Axes, lengths: np.ndarray, title: str, colour: str) -> None:
    values, counts = np.unique(lengths, return_counts=True)
    axes.bar(values, counts, width=0.85, color=colour, alpha=0.85)
    median = float(np.median(lengths))
    axes.axvline(median, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    longest = int(np.quantile(lengths, 0.998, method="higher"))  # a few very long captions would compress the axis
    longer = int((lengths > longest).sum())
    note = f"median {median:g}, mean {lengths.mean():.1f}" + (f"\n{longer} longer than {longest}" if longer else "")
    axes.set_title(title)
    axes.set_title(note, loc="right", fontsize=8.5, fontweight="normal", color=QUIET)
    axes.set_xlim(min(int(values[0]), longest) - 1, longest + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("words in a caption")


def draw_word_cloud(counts: Mapping[str, int], seed: int = CLOUD_SEED) -> Figure:
    """Draw Figure 2: the words of the captions in sizes by their counts. Raises `ValueError` without words."""
    if not counts:
        raise ValueError("no words to draw; counts is empty")
    colours = ListedColormap([BLUE, VERMILION, GREEN, "#7a4f9a", "#8a6100", INK])
    layout: Any = {"width": 1400, "height": 700, "margin": 6, "max_words": 150, "random_state": seed}
    layout |= {"prefer_horizontal": 0.95, "relative_scaling": 0.45, "max_font_size": 240}
    cloud = WordCloud(findfont("DejaVu Sans"), background_color="white", colormap=colours, **layout)
    figure = Figure(figsize=(9.0, 4.5))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(cloud.generate_from_frequencies(dict(sorted(counts.items()))).to_array(), interpolation="none")
    axes.set_axis_off()
    return figure


def draw_example(image: Image.Image, captions: Sequence[tuple[str, str]], title: str) -> Figure:
    """Draw one of Figures 4-7: a test image beside pairs (row, caption), the reference last and in another colour."""
    wrapped = [(row, textwrap.wrap(caption, 66) or ["(empty caption)"]) for row, caption in captions]
    heights = [0.30 + 0.21 * len(lines) + 0.12 for _, lines in wrapped]  # inches
    height = max(3.0, sum(heights)) + 0.65
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, height))
        figure.text(0.25 / 9.0, 1 - 0.2 / height, title, fontsize=11, fontweight="bold", color=INK, va="top")
        _draw_image(figure.add_axes((0.25 / 9.0, (height - 0.5 - 2.95) / height, 2.95 / 9.0, 2.95 / height)), image)
        top, text_x = height - 0.55, 3.5 / 9.0  # inches from the bottom, share of the width
        for number, (row, lines) in enumerate(wrapped):
            colour = GREEN if number == len(wrapped) - 1 else BLUE
            figure.text(text_x, top / height, row, fontsize=8.5, fontweight="bold", color=colour, va="top")
            for line, text in enumerate(lines):
                figure.text(text_x, (top - 0.22 - 0.21 * line) / height, text, fontsize=10, color=INK, va="top")
            top -= heights[number]
    return figure


def _draw_image(axes: Axes, image: Image.Image, pixels: int = 480) -> None:
    method = Image.Resampling.NEAREST if max(image.size) < SMALL_IMAGE else Image.Resampling.BICUBIC
    factor = pixels / max(image.size)
    size = round(image.width * factor), round(image.height * factor)
    axes.imshow(image.convert("RGB").resize(size, method), interpolation="none")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=RULE, visible=True)
    axes.grid(visible=False)


@dataclass(frozen=True)
class SeedRow:
    """A row's name, CIDEr of each seed, whether it was trained, and the paper's CIDEr if it has that row."""

    name: str
    ciders: Sequence[float]
    is_trained: bool
    paper: float | None


def draw_seeds(rows: Sequence[SeedRow]) -> Figure:
    """Draw CIDEr of each row: a point for each seed, a bar at their mean, and a diamond at the paper's value."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 1.2 + 0.34 * len(rows)), layout="constrained")
        axes = figure.subplots()
        for y, row in enumerate(rows):
            colour = BLUE if row.is_trained else QUIET
            axes.plot(row.ciders, [y] * len(row.ciders), "o", color=colour, alpha=0.55, markersize=6, zorder=3)
            mean = math.fsum(row.ciders) / len(row.ciders)
            if len(row.ciders) > 1:
                axes.plot([mean], [y], color=colour, zorder=4, **MEAN_BAR)
            if row.paper is not None:
                axes.plot([row.paper], [y], "D", color=VERMILION, markerfacecolor="none", markersize=7, zorder=5)
        seeds = max(len(row.ciders) for row in rows)
        axes.set_title(f"CIDEr of {seeds} seeds" if seeds > 1 else "CIDEr of one seed: how far seeds spread is unknown")
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel="CIDEr times 100")
        axes.grid(visible=False, axis="y")
        _draw_seeds_legend(figure, seeds > 1, any(row.paper is not None for row in rows))
    return figure


def _draw_seeds_legend(figure: Figure, has_means: bool, has_paper: bool) -> None:
    point: Any = {"linestyle": "none", "markersize": 6}
    handles = [Line2D([], [], marker="o", color=BLUE, alpha=0.55, label="a seed", **point)]
    if has_means:
        handles += [Line2D([], [], color=BLUE, label="mean of the seeds", **MEAN_BAR)]
    handles += [Line2D([], [], marker="o", color=QUIET, alpha=0.55, label="not trained", **point)]
    if has_paper:
        diamond: Any = {"marker": "D", "markerfacecolor": "none", "color": VERMILION}
        handles += [Line2D([], [], label="paper, one run", **diamond, **point)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))


def draw_table(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> Figure:
    """Draw a table; a row of one cell is a group's title. The first column is aligned left, the others right."""
    columns = [[header[k], *(row[k] for row in rows if len(row) > 1)] for k in range(len(header))]
    widths = [max(map(_text_width, column)) + 0.28 for column in columns]
    note_lines = [line for note in notes for line in textwrap.wrap(note, max(40, int(math.fsum(widths) / 0.058)))]
    width, step = math.fsum(widths) + 0.3, 0.27  # inches
    height = step * (len(rows) + 1) + 0.19 * len(note_lines) + 0.45
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    _draw_row(axes, header, widths, 0.3, bold=True)
    for number, row in enumerate(rows, start=1):
        _draw_row(axes, row, widths, 0.3 + step * number, bold=len(row) == 1)
        if len(row) == 1:
            axes.plot([0.15, width - 0.15], [0.3 + step * (number - 0.5)] * 2, color=RULE, linewidth=0.8)
    for y in (0.3 - step * 0.6, 0.3 + step * 0.5, 0.3 + step * (len(rows) + 0.5)):
        axes.plot([0.15, width - 0.15], [y, y], color=INK, linewidth=1.1)
    for number, line in enumerate(note_lines):
        axes.text(0.2, 0.3 + step * (len(rows) + 1) + 0.19 * number, line, fontsize=7.5, color=QUIET, va="center")
    return figure


def _draw_row(axes: Axes, cells: Sequence[str], widths: Sequence[float], y: float, bold: bool) -> None:
    style: dict[str, Any] = {"fontsize": 9, "va": "center", "color": INK, "fontweight": "bold" if bold else "normal"}
    axes.text(0.2, y, cells[0], **style)
    for k, cell in enumerate(cells[1:], start=1):
        axes.text(0.15 + math.fsum(widths[: k + 1]) - 0.05, y, cell, ha="right", **style)


def _text_width(text: str) -> float:
    """Return the width of bold text in inches."""
    figure = Figure(dpi=100)
    drawn = figure.text(0, 0, text, fontsize=9, fontweight="bold")
    return float(drawn.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width) / 100
