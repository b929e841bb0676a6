"""Figures are the same in each run and draw their data; their texts neither overlap nor leave their boxes."""

import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from PIL import Image

from captioning.params.recipe import ScstRecipe, VariantRecipe
from captioning.report.curves import draw_scst_curves, draw_training_curves
from captioning.report.figure_3 import draw_figure_3
from captioning.report.figures import (
    SeedRow,
    draw_caption_lengths,
    draw_example,
    draw_seeds,
    draw_table,
    draw_word_cloud,
)
from tests.helpers.small_recipes import scst_recipe, variant_recipe

ROOT = str(Path(__file__).parents[2])
DRAWING = """
import sys; from pathlib import Path
from captioning.report.figures import draw_caption_lengths, save_figure, draw_word_cloud
counts = {"runway": 12, "forest": 30, "road": 30, "river": 40}
save_figure(draw_word_cloud(counts, 1), Path(sys.argv[1]) / "cloud")
save_figure(draw_caption_lengths([9, 10, 11, 40], [5, 6, 6, 20]), Path(sys.argv[1]) / "lengths")
"""


def recipes(targets: str = "table2", baseline: str = "greedy", **lora: Any) -> tuple[VariantRecipe, ScstRecipe]:
    adapter = {"rank": 16, "alpha": 16.0, "targets": targets} | lora
    finetune = {"captions": "random", "batch": 128, "accumulation": 16, "learning_rate": 2e-5}
    scst = {"baseline": baseline, "learning_rate": 1.25e-5, "batch": 16, "epochs": 2, "images": 26712}
    return variant_recipe(name="rsvqa-lr", **adapter, **finetune), scst_recipe(**scst)


def text_boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every visible text with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    visible = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    texts = [text for text in visible if not isinstance(text, Annotation)]
    return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in texts]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    pairs = itertools.combinations(text_boxes(figure), 2)
    return [(a, b) for (a, first), (b, second) in pairs if Bbox.intersection(first.padded(-0.5), second.padded(-0.5))]


def assert_readable(figure: Figure) -> None:
    assert overlaps(figure) == []
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for _, box in text_boxes(figure))


def test_two_processes_write_the_same_bytes_without_date_and_program(tmp_path: Path) -> None:
    contents = []
    for seed in "12":
        folder, environment = tmp_path / seed, {"PYTHONHASHSEED": seed, "PYTHONPATH": ROOT}
        command = [sys.executable, "-c", DRAWING, str(folder)]
        subprocess.run(command, check=True, env=os.environ | environment)
        contents.append({file.name: file.read_bytes() for file in sorted(folder.rglob("*.*"))})
    assert list(contents[0]) == ["cloud.png", "lengths.png", "cloud.svg", "lengths.svg"]
    assert contents[0] == contents[1]
    assert b"<dc:date>" not in contents[0]["lengths.svg"]
    assert "Software" not in Image.open(tmp_path / "1/lengths.png").info


def test_histogram_bars_are_the_counts() -> None:
    figure = draw_caption_lengths([10] * 7 + [11] * 3, [6] * 10)
    bars = [bar for bar in figure.axes[0].patches if isinstance(bar, Rectangle)]
    assert {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in bars} == {10: 7, 11: 3}
    assert "median 10, mean 10.3" in [text for text, _ in text_boxes(figure)]


def test_figures_without_data_are_refused() -> None:
    for draw, data in ((draw_word_cloud, {}), (draw_training_curves, {}), (draw_scst_curves, {"greedy": []})):
        with pytest.raises(ValueError, match=r"no .* to draw"):
            draw(data)
    with pytest.raises(ValueError, match="no caption lengths to draw"):
        draw_caption_lengths([], [1])


@pytest.mark.parametrize("baseline", ["greedy", "leave-one-out"])
@pytest.mark.parametrize("targets", ["table2", "decoder", "decoder-attention", "all-linear"])
def test_pipeline_texts_stay_apart_and_inside_their_boxes(targets: str, baseline: str) -> None:
    figure = draw_figure_3(*recipes(targets, baseline, rank=256, alpha=512.5, rslora=True))
    assert overlaps(figure) == []
    boxes = [patch.get_window_extent() for patch in figure.findobj(FancyBboxPatch)]
    for text, extent in text_boxes(figure):
        x, y = (extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2
        around = [box for box in boxes if box.contains(x, y)]
        smallest = min(around, key=lambda box: box.width * box.height, default=figure.bbox)
        assert smallest.x0 <= extent.x0 and extent.x1 <= smallest.x1, text
        assert smallest.y0 <= extent.y0 and extent.y1 <= smallest.y1, text


def test_pipeline_draws_the_recipe_and_only_that() -> None:
    def words(**settings: str) -> list[str]:
        return [text for text, _ in text_boxes(draw_figure_3(*recipes(**settings)))]

    greedy, leave_one_out = " ".join(words()), " ".join(words(baseline="leave-one-out"))
    for number in ("128 × 16 = 2048", "2e-5", "1.25e-5", "r = 16, α = 16", "5 sampled captions", "26,712 images"):
        assert number in greedy
    assert "greedy caption" in greedy and "greedy" not in leave_one_out
    counts = [words(targets=targets).count("adapters") for targets in ("decoder", "table2", "all-linear")]
    assert counts == [0, 1, 2]  # besides the decoder's own


def test_example_wraps_long_captions_and_accepts_dollar_signs() -> None:
    captions = [("Zero-shot", "costs $5 and $6"), ("Mix", "houses " * 40), ("SCST", ""), ("Reference C1", "x" * 150)]
    figure = draw_example(Image.new("RGB", (48, 48), "teal"), captions, "Image 1")
    texts = [text for text, _ in text_boxes(figure)]
    assert "costs $5 and $6" in texts and "(empty caption)" in texts
    assert sum(text.count("houses") for text in texts) == 40
    assert_readable(figure)


def test_table_figure_separates_columns() -> None:
    rows = [["Model with a long name", "100.1 ± 10.2", "1"], ["A group"], ["b", "2", "3"]]
    assert_readable(draw_table(["Model", "CIDEr", "share %"], rows, ["A note " * 30]))


def test_training_curves_show_all_variants_and_only_measured_points() -> None:
    losses = {"loss": [3.0, 2.0, None, 1.0], "validation_loss": [None, 2.5, None, 1.5]}
    run = pandas.DataFrame({"step": [1, 2, 3, 4], **losses})
    figure = draw_training_curves({"mix": [run, run], "base-r4": [run]})
    training, validation = figure.axes
    assert len(training.lines) == len(validation.lines) == 3
    assert list(np.asarray(validation.lines[0].get_xdata())) == [2, 4]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mix", "base-r4"]


def scst_run(gain: float) -> pandas.DataFrame:
    """Step records as the stage scst writes them: a validation at the start and the end, two steps between."""
    trained = {"reward": (0.8, 0.9), "baseline": (1.1, 1.2), "length": (12, 11), "ended": (None, None)}
    trained |= {
        "distinct": (0.9, 0.8),
        "advantage": (-0.5, 0.1),
        "advantage_deviation": (0.8, 0.6),
        "loss": (-3.0, 1.0),
    }
    validated = {"validation_cider": (100.0, 100 + gain), "validation_length": (10.0, 9.0), "gain": (0.0, gain)}
    validated |= {"gain_low": (0.0, gain - 4), "gain_high": (0.0, gain + 6)}
    columns = {name: [None, *values, None] for name, values in trained.items()}
    columns |= {name: [first, None, None, last] for name, (first, last) in validated.items()}
    return pandas.DataFrame({"step": [0, 0, 1, 2], **columns})


def test_scst_curves_draw_each_measured_quantity_of_each_run() -> None:
    figure = draw_scst_curves({"greedy": [scst_run(10), scst_run(8)], "leave-one-out": [scst_run(20)]})
    reward, cider, length, share, advantage, loss = figure.axes
    assert [len(axes.lines) for axes in (reward, length, share, advantage, loss)] == [6, 6, 3, 6, 3]
    assert len({line.get_color() for line in reward.lines}) == 2  # one for each baseline
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["greedy", "leave-one-out"]
    scores = [list(np.asarray(points.lines[0].get_ydata())) for points in cider.containers]
    assert scores == [[100.0, 110.0], [100.0, 108.0], [100.0, 120.0]]
    whiskers = cider.containers[0].lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in whiskers] == [[100.0, 100.0], [106.0, 116.0]]
    assert not [pair for pair in overlaps(figure) if all(any(map(str.isalpha, text)) for text in pair)]


def test_each_seed_is_a_point_and_the_bar_is_at_their_mean() -> None:
    rows = [SeedRow("Zero-shot", [12.5], False, 15.2), SeedRow("Mix", [110.0, 118.0, 114.0], True, 113.2)]
    (axes,) = draw_seeds(rows).axes
    drawn = {(line.get_marker(), tuple(np.ravel(line.get_xdata()))) for line in axes.lines}
    points = {("o", (12.5,)), ("o", (110.0, 118.0, 114.0)), ("D", (15.2,)), ("D", (113.2,))}
    assert drawn == points | {("|", (114.0,))}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Zero-shot", "Mix"]
    assert axes.get_title(loc="left") == "CIDEr of 3 seeds"


def test_one_seed_shows_no_spread_and_says_so() -> None:
    figure = draw_seeds([SeedRow("Mix", [110.0], True, None)])
    assert "unknown" in figure.axes[0].get_title(loc="left")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a seed", "not trained"]
