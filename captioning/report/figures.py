"""The paper's Figures 1, 2 and 4-7, Table II as a picture, and how every figure is saved.

Figures are built as `Figure` objects, without pyplot's global state, and saved twice: PNG for
documents, SVG for the page.

Deliberate differences from the paper:

1. Figure 1 counts the words of every caption and says so; the paper does not say which captions it counted.
2. The same values give the same bytes: the SVG's ids are salted with a constant, and neither file carries a date or a
   program's name. The word cloud is laid out with a seed.
3. Colours are Okabe and Ito's (2008), which remain distinct to colour-blind readers.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ticker import MaxNLocator
from PIL import Image
from wordcloud import WordCloud

from captioning.base.files import atomic_file

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
)
PALETTE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
INK, QUIET, RULE = "#1c2430", "#5b6675", "#c9d0d9"  # text, secondary text, lines
RESOLUTION = 150  # dots an inch of the PNG
CLOUD_SEED = 1  # where the words of Figure 2 lie
SMALL_IMAGE = 128  # pixels; below, enlarging shows the pixels as they are
STYLE: Any = {
    "font.family": "DejaVu Sans", "font.size": 9.5, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": RULE,
    "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": "#e8ecf1",
    "grid.linewidth": 0.8, "figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.12,
    "xtick.color": QUIET, "ytick.color": QUIET, "legend.frameon": False, "lines.linewidth": 1.6,
    "text.parse_math": False,  # a caption may hold a dollar sign
}  # fmt: skip


def save(figure: Figure, path: Path) -> None:
    """Write `<path>.png` and `<path>.svg`; `path` has no suffix. Two runs write the same bytes."""
    of_kind: dict[str, dict[str, Any]] = {
        "png": {"dpi": RESOLUTION, "metadata": {"Software": None}},
        "svg": {"metadata": {"Date": None, "Creator": None}},
    }
    with matplotlib.rc_context({"svg.hashsalt": "captioning", "svg.fonttype": "path"}):
        for kind, options in of_kind.items():
            with atomic_file(path.with_name(f"{path.name}.{kind}")) as partial:
                figure.savefig(partial, format=kind, facecolor="white", **options)


def caption_lengths(with_stop_words: Sequence[int], without: Sequence[int]) -> Figure:
    """Figure 1: how many words a caption has, as written and after stop words are taken out.

    Both sequences hold one count a caption. Raises `ValueError` where one is empty.
    """
    if not len(with_stop_words) or not len(without):
        raise ValueError("no caption lengths to draw; each sequence needs one count a caption")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.4), layout="constrained")
        axes = figure.subplots(1, 2, sharey=True)
        _lengths(axes[0], np.asarray(with_stop_words), "All words", BLUE)
        _lengths(axes[1], np.asarray(without), "Without stop words", VERMILION)
        axes[0].set_ylabel("captions")
    return figure


def _lengths(axes: Axes, lengths: np.ndarray, title: str, colour: str) -> None:
    values, counts = np.unique(lengths, return_counts=True)
    axes.bar(values, counts, width=0.85, color=colour, alpha=0.85)
    median = float(np.median(lengths))
    axes.axvline(median, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    last = int(np.quantile(lengths, 0.998, method="higher"))  # a few very long captions would flatten the rest
    beyond = int((lengths > last).sum())
    note = f"median {median:g}, mean {lengths.mean():.1f}" + (f"\n{beyond} longer than {last}" if beyond else "")
    axes.set_title(title)
    axes.set_title(note, loc="right", fontsize=8.5, fontweight="normal", color=QUIET)
    axes.set_xlim(min(int(values[0]), last) - 1, last + 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("words in a caption")


def word_cloud(counts: Mapping[str, int], seed: int = CLOUD_SEED) -> Figure:
    """Figure 2: words of the captions, sized by how often they occur (`counts`: word to occurrences).

    Raises `ValueError` where `counts` is empty.
    """
    if not counts:
        raise ValueError("no words to draw; counts is empty")
    cloud = WordCloud(width=1400, height=700, background_color="white", random_state=seed, max_words=150, margin=6,
                      font_path=findfont("DejaVu Sans"), prefer_horizontal=0.95, relative_scaling=0.45,
                      max_font_size=240,
                      colormap=ListedColormap([BLUE, VERMILION, GREEN, "#7a4f9a", "#8a6100", INK]))  # fmt: skip
    picture = cloud.generate_from_frequencies(dict(sorted(counts.items()))).to_array()
    figure = Figure(figsize=(9.0, 4.5))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture, interpolation="none")
    axes.set_axis_off()
    return figure


def captioning_example(image: Image.Image, lines: Sequence[tuple[str, str]], title: str) -> Figure:
    """Figures 4-7: a test image beside its captions; `lines` holds (whose, caption) from top to bottom.

    The last line is taken to be the reference and set apart by colour. Small images are enlarged pixel by pixel.
    """
    wrapped = [(whose, textwrap.wrap(caption, 66) or ["(empty caption)"]) for whose, caption in lines]
    text_height = sum(0.30 + 0.21 * len(caption) + 0.12 for _, caption in wrapped)  # inches
    height = max(3.0, text_height) + 0.65
    with matplotlib.rc_context(STYLE):
        figure = _example(image, title, height)
        _captions(figure, wrapped, height)
    return figure


def _example(image: Image.Image, title: str, height: float) -> Figure:
    figure = Figure(figsize=(9.0, height))
    figure.text(0.25 / 9.0, 1 - 0.2 / height, title, fontsize=11, fontweight="bold", color=INK, va="top")
    axes = figure.add_axes((0.25 / 9.0, (height - 0.5 - 2.95) / height, 2.95 / 9.0, 2.95 / height))
    axes.imshow(_enlarged(image), interpolation="none")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=RULE, visible=True)
    axes.grid(visible=False)
    return figure


def _captions(figure: Figure, wrapped: Sequence[tuple[str, list[str]]], height: float) -> None:
    top, left = height - 0.55, 3.5 / 9.0  # inches from the bottom, share of the width
    for number, (whose, caption) in enumerate(wrapped):
        colour = GREEN if number == len(wrapped) - 1 else BLUE
        figure.text(left, top / height, whose, fontsize=8.5, fontweight="bold", color=colour, va="top")
        for line, text in enumerate(caption):
            figure.text(left, (top - 0.22 - 0.21 * line) / height, text, fontsize=10, color=INK, va="top")
        top -= 0.30 + 0.21 * len(caption) + 0.12


def _enlarged(image: Image.Image, pixels: int = 480) -> Image.Image:
    method = Image.Resampling.NEAREST if max(image.size) < SMALL_IMAGE else Image.Resampling.BICUBIC
    factor = pixels / max(image.size)
    return image.convert("RGB").resize((round(image.width * factor), round(image.height * factor)), method)


def table_picture(header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> Figure:
    """A table as a picture. A row of one cell is a group's title; the first column is set left, the others right."""
    columns = [[header[k], *(row[k] for row in rows if len(row) > 1)] for k in range(len(header))]
    widths = [max(_inches(cell, bold=True) for cell in column) + 0.28 for column in columns]
    note_lines = [line for note in notes for line in textwrap.wrap(note, max(40, int(math.fsum(widths) / 0.058)))]
    width, step = math.fsum(widths) + 0.3, 0.27  # inches
    height = step * (len(rows) + 1) + 0.19 * len(note_lines) + 0.45
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    _row(axes, header, widths, 0.3, bold=True)
    for number, row in enumerate(rows, start=1):
        _row(axes, row, widths, 0.3 + step * number, bold=len(row) == 1)
        if len(row) == 1:
            axes.plot([0.15, width - 0.15], [0.3 + step * (number - 0.5)] * 2, color=RULE, linewidth=0.8)
    for y in (0.3 - step * 0.6, 0.3 + step * 0.5, 0.3 + step * (len(rows) + 0.5)):
        axes.plot([0.15, width - 0.15], [y, y], color=INK, linewidth=1.1)
    for number, line in enumerate(note_lines):
        axes.text(0.2, 0.3 + step * (len(rows) + 1) + 0.19 * number, line, fontsize=7.5, color=QUIET, va="center")
    return figure


def _row(axes: Axes, cells: Sequence[str], widths: Sequence[float], y: float, bold: bool) -> None:
    style: dict[str, Any] = {"fontsize": 9, "va": "center", "color": INK, "fontweight": "bold" if bold else "normal"}
    axes.text(0.2, y, cells[0], **style)
    for k, cell in enumerate(cells[1:], start=1):
        axes.text(0.15 + math.fsum(widths[: k + 1]) - 0.05, y, cell, ha="right", **style)


def _inches(text: str, bold: bool) -> float:
    figure = Figure(dpi=100)
    drawn = figure.text(0, 0, text, fontsize=9, fontweight="bold" if bold else "normal")
    return float(drawn.get_window_extent(FigureCanvasAgg(figure).get_renderer()).width) / 100
