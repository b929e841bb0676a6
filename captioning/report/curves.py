"""Draw the curves of the two training stages from their step records.

Deliberate differences: each seed is a line in its variant's colour, so no average hides a run. Values of steps are
smoothed by a running mean, whose width the axis names. Each gain of SCST has its interval; small offsets keep the
points of several runs at one step apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captioning.report.figures import PALETTE, QUIET, STYLE

DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = "osD^vPX*"
OFFSET = 0.006  # share of the last step, between the points of two runs
Records = Mapping[str, Sequence[pandas.DataFrame]]  # by variant or refinement, the step records of each seed


def draw_training_curves(records: Records) -> Figure:
    """Draw training and validation loss (nats per token) of each variant by optimizer step.

    Columns: `step`, `loss`, `validation_loss` (at the ends of epochs). Raises `ValueError` without records.
    """
    if not any(len(runs) for runs in records.values()):
        raise ValueError("no step records to draw; train a variant first")
    window = _smoothing_window([run["loss"].count() for runs in records.values() for run in runs])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.2), layout="constrained")
        training, validation = figure.subplots(1, 2)
        for number, (variant, runs) in enumerate(records.items()):
            line: Any = {"color": PALETTE[number % len(PALETTE)], "linestyle": DASHES[number % len(DASHES)]}
            point: Any = line | {"marker": MARKERS[number % len(MARKERS)], "markersize": 5}
            for seed, run in enumerate(runs):
                _draw_line(training, run, "loss", window, linewidth=1.3, **line)
                _draw_line(validation, run, "validation_loss", label="_" * (seed > 0) + variant, **point)
        _set_titles(training, "Training loss", "optimiser step" + _describe_smoothing(window), "cross-entropy")
        _set_titles(validation, "Validation loss", "optimiser step (at each epoch's end)", "cross-entropy")
        figure.legend(loc="outside right center", title="variant", alignment="left")
    return figure


def draw_scst_curves(records: Records) -> Figure:
    """Draw what SCST did to each start with each baseline, one line for each seed, by step.

    Columns of steps: `step`, `reward`, `baseline`, `advantage`, `advantage_deviation`, `loss`, `length` (words),
    `ended`, `distinct` (shares). Columns of validations: `step`, `validation_cider` (times 100), `validation_length`,
    `gain`, `gain_low`, `gain_high`. Raises `ValueError` without records.
    """
    all_runs = [run for runs in records.values() for run in runs]
    if not all_runs:
        raise ValueError("no step records to draw; run SCST first")
    window = _smoothing_window([run["reward"].count() for run in all_runs])
    last_step = max(run["step"].max() for run in all_runs)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 9.8), layout="constrained")
        panels = figure.subplots(3, 2)
        for number, (name, runs) in enumerate(records.items()):
            offset = OFFSET * last_step * (number - (len(records) - 1) / 2)
            for seed, run in enumerate(runs):
                _draw_scst_run(panels, run, window, number)
                style: Any = {"color": PALETTE[number % len(PALETTE)], "label": "_" * (seed > 0) + name}
                _draw_gains(panels[0, 1], run, offset, marker=MARKERS[number % len(MARKERS)], **style)
        _set_scst_titles(panels, "step" + _describe_smoothing(window))
        handles, columns = panels[0, 1].get_legend_handles_labels(), min(len(records), 4)
        figure.legend(*handles, loc="outside upper left", ncols=columns, title="start, baseline", alignment="left")
    return figure


def _draw_scst_run(panels: np.ndarray, run: pandas.DataFrame, window: int, number: int) -> None:
    (reward, _), (length, share), (advantage, loss) = panels
    solid: Any = {"color": PALETTE[number % len(PALETTE)]}
    dashed = solid | {"linestyle": DASHES[1], "linewidth": 1.2}
    _draw_line(reward, run, "reward", window, **solid)
    _draw_line(reward, run, "baseline", window, **dashed)
    _draw_line(length, run, "length", window, **solid)
    _draw_line(length, run, "validation_length", marker=MARKERS[number % len(MARKERS)], markersize=5, **dashed)
    _draw_line(share, run, "ended", window, **solid)
    _draw_line(share, run, "distinct", window, **dashed)
    _draw_line(advantage, run, "advantage", window, **solid)
    _draw_line(advantage, run, "advantage_deviation", window, **dashed)
    _draw_line(loss, run, "loss", window, **solid)


def _draw_gains(axes: Axes, run: pandas.DataFrame, offset: float, **style: object) -> None:
    """Draw validation CIDEr with whiskers from start + gain_low to start + gain_high."""
    measured = run[["step", "validation_cider", "gain", "gain_low", "gain_high"]].dropna()
    whiskers = np.stack([measured["gain"] - measured["gain_low"], measured["gain_high"] - measured["gain"]])
    steps, scores = measured["step"].to_numpy() + offset, measured["validation_cider"].to_numpy()
    style |= {"markersize": 5, "capsize": 3, "elinewidth": 1.0, "yerr": np.clip(whiskers, 0, None)}
    axes.errorbar(steps, scores, **style)  # type: ignore[arg-type]


def _set_scst_titles(panels: np.ndarray, step: str) -> None:
    (reward, cider), (length, share), (advantage, loss) = panels
    _set_titles(reward, "Reward of sampled captions (dashed: baseline)", step, "CIDEr-D (0 to 10)")
    _set_titles(cider, "Validation CIDEr (95 % interval of the gain)", "step", "CIDEr-D × 100")
    _set_titles(length, "Length of sampled captions (dashed: validation)", step, "words")
    _set_titles(share, "Sampled captions that ended (dashed: distinct)", step, "share")
    _set_titles(advantage, "Advantage: mean (dashed: deviation)", step, "CIDEr-D (0 to 10)")
    _set_titles(loss, "Loss: mean of -A log p, whose level means nothing", step, "CIDEr-D × nats")
    share.set_ylim(0, 1.05)


def _draw_line(axes: Axes, run: pandas.DataFrame, column: str, window: int = 1, **style: object) -> None:
    measured = run[["step", column]].dropna()
    if not measured.empty:
        values = measured[column].astype(float).rolling(window, min_periods=1).mean()
        axes.plot(measured["step"].to_numpy(), values.to_numpy(), **style)  # type: ignore[arg-type]


def _smoothing_window(counts: Sequence[int]) -> int:
    """Return the steps to average: a thirtieth of the longest run, at least one."""
    return max(1, int(np.max(counts)) // 30)


def _describe_smoothing(window: int) -> str:
    return f" (running mean of {window} records)" if window > 1 else ""


def _set_titles(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x, color=QUIET)
    axes.set_ylabel(y, color=QUIET)
    axes.margins(x=0.03)
