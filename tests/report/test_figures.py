"""Figures repeat byte for byte, draw what they are given, and their texts neither overlap nor leave their boxes."""

import hashlib
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

from captioning.report.curves import scst_curves, training_curves
from captioning.report.diagram import two_stage_pipeline
from captioning.report.figures import caption_lengths, captioning_example, save, table_picture, word_cloud

ROOT = str(Path(__file__).parents[2])
COUNTS = {"river": 40, "road": 30, "forest": 30, "runway": 12}
DRAWING = """
import sys; from pathlib import Path
from captioning.report.figures import caption_lengths, save, word_cloud
save(word_cloud(dict(reversed({counts}.items())), 1), Path(sys.argv[1]) / "cloud")
save(caption_lengths([9, 10, 11, 40], [5, 6, 6, 20]), Path(sys.argv[1]) / "lengths")
"""


def recipes(targets: str = "table2", baseline: str = "greedy", **lora: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = {"rank": 16, "alpha": 16, "rslora": False, "targets": targets} | lora
    recipe = {
        "checkpoint": {"name": "rsvqa-lr"},
        "lora": settings,
        "finetune": {
            "prompt": "caption en",
            "captions": "random",
            "batch": 128,
            "accumulation": 16,
            "epochs": 2,
            "learning_rate": 2e-5,
        },
    }
    return recipe, {"scst": {"start": "mix", "baseline": baseline, "samples": 5, "temperature": 1.0,
                             "learning_rate": 1.25e-5,
                             "batch": 16, "epochs": 2, "images": 26712}}  # fmt: skip


def texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every visible text with its box in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    found = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in found if not isinstance(text, Annotation)]


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    return [(a, b) for (a, one), (b, other) in itertools.combinations(texts(figure), 2)
            if Bbox.intersection(one.padded(-0.5), other.padded(-0.5))]  # fmt: skip


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for seed in "12":
        folder = tmp_path / seed
        subprocess.run([sys.executable, "-c", DRAWING.format(counts=COUNTS), str(folder)], check=True,
                       env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": ROOT})  # fmt: skip
        files = sorted(folder.iterdir())
        assert [file.name for file in files] == ["cloud.png", "cloud.svg", "lengths.png", "lengths.svg"]
        digests.add(hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest())
    assert len(digests) == 1


def test_files_carry_no_date_and_no_program(tmp_path: Path) -> None:
    save(caption_lengths([3, 4], [2, 2]), tmp_path / "figure-1.2")
    assert "<dc:date>" not in (tmp_path / "figure-1.2.svg").read_text()
    assert "Software" not in Image.open(tmp_path / "figure-1.2.png").info


def test_histogram_bars_are_the_counts() -> None:
    figure = caption_lengths([10] * 7 + [11] * 3, [6] * 10)
    bars = {
        round(bar.get_x() + bar.get_width() / 2): bar.get_height()
        for bar in figure.axes[0].patches
        if isinstance(bar, Rectangle)
    }
    assert bars == {10: 7, 11: 3}
    assert "median 10, mean 10.3" in [text for text, _ in texts(figure)]


@pytest.mark.parametrize("draw", [lambda: caption_lengths([], [1]), lambda: word_cloud({}, 1),
                                  lambda: training_curves({}),
                                  lambda: scst_curves({"greedy": []})])  # fmt: skip
def test_nothing_to_draw_is_said(draw: Any) -> None:
    with pytest.raises(ValueError, match=r"no .* to draw"):
        draw()


@pytest.mark.parametrize("baseline", ["greedy", "leave-one-out"])
@pytest.mark.parametrize("targets", ["table2", "decoder", "decoder-attention", "all-linear"])
def test_pipeline_texts_stay_apart_and_inside_their_boxes(targets: str, baseline: str) -> None:
    figure = two_stage_pipeline(*recipes(targets, baseline, rank=256, alpha=512.5, rslora=True))
    assert overlaps(figure) == []
    boxes = [patch.get_window_extent() for patch in figure.findobj(FancyBboxPatch)]
    for text, extent in texts(figure):
        x, y = (extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2
        around = [box for box in boxes if box.contains(x, y)]
        smallest = min(around, key=lambda box: box.width * box.height, default=figure.bbox)
        assert smallest.x0 <= extent.x0 and extent.x1 <= smallest.x1, text
        assert smallest.y0 <= extent.y0 and extent.y1 <= smallest.y1, text


def test_pipeline_draws_the_recipe_and_no_more() -> None:
    greedy, loo = (" ".join(text for text, _ in texts(two_stage_pipeline(*recipes(baseline=name))))
                   for name in ("greedy", "leave-one-out"))  # fmt: skip
    for number in ("128 × 16 = 2048", "2e-5", "1.25e-5", "r = 16, α = 16", "5 sampled captions", "26,712 images"):
        assert number in greedy
    assert "greedy caption" in greedy and "greedy" not in loo
    adapters = [sum(text == "adapters" for text, _ in texts(two_stage_pipeline(*recipes(targets))))
                for targets in ("decoder", "table2", "all-linear")]  # fmt: skip
    assert adapters == [0, 1, 2]  # beside the decoder's own


def test_example_wraps_long_captions_and_takes_dollar_signs() -> None:
    lines = [("Zero-shot", "costs $5 and $6"), ("Mix", "houses " * 40), ("SCST", ""), ("Reference C1", "x" * 150)]
    figure = captioning_example(Image.new("RGB", (48, 48), "teal"), lines, "Image 1")
    shown = [text for text, _ in texts(figure)]
    assert (
        "costs $5 and $6" in shown and "(empty caption)" in shown and sum(text.count("houses") for text in shown) == 40
    )
    assert overlaps(figure) == []
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for _, box in texts(figure))


def test_small_images_keep_their_pixels() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 255
    figure = captioning_example(Image.fromarray(pixels), [("C1", "a dot")], "Image 1")
    drawn = np.asarray(figure.axes[0].images[0].get_array())
    assert set(np.unique(drawn)) == {0, 255} and drawn[:240, :240].min() == 255 and drawn[240:].max() == 0


def test_table_picture_keeps_columns_apart() -> None:
    rows = [["Model with a long name", "100.1 ± 10.2", "1"], ["A group"], ["b", "2", "3"]]
    figure = table_picture(["Model", "CIDEr", "share %"], rows, ["A note " * 30])
    assert overlaps(figure) == []
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 for _, box in texts(figure))


def test_curves_show_every_variant_and_only_measured_points() -> None:
    run = pandas.DataFrame(
        {"step": [1, 2, 3, 4], "loss": [3.0, 2.0, None, 1.0], "validation_loss": [None, 2.5, None, 1.5]}
    )
    figure = training_curves({"mix": [run, run], "base-r4": [run]})
    training, validation = figure.axes
    assert len(training.lines) == len(validation.lines) == 3
    assert list(np.asarray(validation.lines[0].get_xdata())) == [2, 4]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mix", "base-r4"]


def scst_run(lift: float) -> pandas.DataFrame:
    """Step records as stages/scst.py writes them: a validation at the start and the end, two steps between."""
    columns = {"step": [0, 0, 1, 2], "reward": [None, 0.8, 0.9, None], "baseline": [None, 1.1, 1.2, None],
               "length": [None, 12, 11, None], "ended": [None] * 4, "distinct": [None, 0.9, 0.8, None],
               "advantage": [None, -0.5, 0.1, None], "advantage_deviation": [None, 0.8, 0.6, None],
               "loss": [None, -3.0, 1.0, None],
               "validation_cider": [100.0, None, None, 100 + lift], "validation_length": [10.0, None, None, 9.0],
               "gain": [0.0, None, None, lift], "gain_low": [0.0, None, None, lift - 4],
               "gain_high": [0.0, None, None, lift + 6]}  # fmt: skip
    return pandas.DataFrame(columns)


def test_scst_curves_draw_each_quantity_of_each_run_and_pass_over_unmeasured_ones() -> None:
    figure = scst_curves({"greedy": [scst_run(10), scst_run(8)], "leave-one-out": [scst_run(20)]})
    reward, cider, length, share, advantage, loss = figure.axes
    assert [len(axes.lines) for axes in (reward, length, share, advantage, loss)] == [6, 6, 3, 6, 3]
    assert len({line.get_color() for line in reward.lines}) == 2  # a colour a baseline
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["greedy", "leave-one-out"]
    scores = [list(np.asarray(points.lines[0].get_ydata())) for points in cider.containers]
    assert scores == [[100.0, 110.0], [100.0, 108.0], [100.0, 120.0]]
    assert not [pair for pair in overlaps(figure) if all(any(map(str.isalpha, text)) for text in pair)]


def test_whiskers_are_the_interval_of_the_gain_over_the_start() -> None:
    cider = scst_curves({"greedy": [scst_run(10)]}).axes[1]
    (whiskers,) = cider.containers[0].lines[2]
    assert [segment[:, 1].tolist() for segment in whiskers.get_segments()] == [[100.0, 100.0], [106.0, 116.0]]
    assert [segment[0, 0] for segment in whiskers.get_segments()] == [0.0, 2.0]  # alone, no point is set aside
