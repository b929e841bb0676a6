"""Curves of the two training stages, drawn from their step records.

Deliberate differences: where one variant was trained with several seeds, each seed is a line of its own in the
variant's colour; nothing is averaged away. Per-step values are smoothed by a running mean whose width the axis states.
Every gain of SCST has its interval; the points of several runs at one step are set apart by a hair to show them.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captioning.report.figures import PALETTE, QUIET, STYLE

DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = "osD^vPX*"
Records = Mapping[
    str, Sequence[pandas.DataFrame]
]  # variant, or start and baseline of SCST: one table of step records a seed
APART = 0.006  # share of the last step between the points of two runs


def training_curves(records: Records) -> Figure:
    """Training and validation loss (nats a token) by optimiser step of each variant.

    Columns used: `step`, `loss`, `validation_loss` (filled at the ends of epochs). Raises `ValueError` without records.
    """
    if not any(len(runs) for runs in records.values()):
        raise ValueError("no step records to draw; train a variant first")
    window = _window([run["loss"].count() for runs in records.values() for run in runs])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 4.2), layout="constrained")
        training, validation = figure.subplots(1, 2)
        for number, (variant, runs) in enumerate(records.items()):
            style = {"color": PALETTE[number % len(PALETTE)], "linestyle": DASHES[number % len(DASHES)]}
            for seed, run in enumerate(runs):
                label = variant if seed == 0 else "_" + variant
                _line(training, run, "loss", window, linewidth=1.3, **style)
                _line(validation, run, "validation_loss", 1, marker=MARKERS[number % len(MARKERS)], markersize=5,
                      label=label, **style)  # fmt: skip
        _titles(training, "Training loss", "optimiser step" + _smoothing(window), "cross-entropy")
        _titles(validation, "Validation loss", "optimiser step (at each epoch's end)", "cross-entropy")
        figure.legend(loc="outside right center", title="variant", alignment="left")
    return figure


def scst_curves(records: Records) -> Figure:
    """What SCST did to each start against each baseline, one line a seed, by step: rewards, validation CIDEr × 100 with
    the interval of its gain, caption length (words), shares of captions that ended and that are distinct, advantage,
    loss.

    Columns used: `step`; of steps `reward`, `baseline`, `advantage`, `advantage_deviation`, `loss`, `length`, `ended`,
    `distinct`; of validations `validation_cider`, `validation_length`, `gain`, `gain_low`, `gain_high`. Raises
    `ValueError` without records.
    """
    every = [run for runs in records.values() for run in runs]
    if not every:
        raise ValueError("no step records to draw; run SCST first")
    window, last = _window([run["reward"].count() for run in every]), max(run["step"].max() for run in every)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 9.8), layout="constrained")
        panels = figure.subplots(3, 2)
        for number, (name, runs) in enumerate(records.items()):
            aside = APART * last * (number - (len(records) - 1) / 2)
            for seed, run in enumerate(runs):
                _scst_run(panels, run, window, aside, number, "_" * (seed > 0) + name)
        _scst_titles(panels, "step" + _smoothing(window))
        figure.legend(*panels[0, 1].get_legend_handles_labels(), loc="outside upper left", ncols=min(len(records), 4),
                      title="start, baseline", alignment="left")  # fmt: skip
    return figure


def _scst_run(panels: np.ndarray, run: pandas.DataFrame, window: int, aside: float, number: int, label: str) -> None:
    (reward, cider), (length, share), (advantage, loss) = panels
    solid = {"color": PALETTE[number % len(PALETTE)]}
    dashed = solid | {"linestyle": DASHES[1], "linewidth": 1.2}
    point = {"marker": MARKERS[number % len(MARKERS)], "markersize": 5}
    _line(reward, run, "reward", window, **solid)
    _line(reward, run, "baseline", window, **dashed)
    _gains(cider, run, aside, label=label, capsize=3, elinewidth=1.0, **solid, **point)
    _line(length, run, "length", window, **solid)
    _line(length, run, "validation_length", 1, **dashed, **point)
    _line(share, run, "ended", window, **solid)
    _line(share, run, "distinct", window, **dashed)
    _line(advantage, run, "advantage", window, **solid)
    _line(advantage, run, "advantage_deviation", window, **dashed)
    _line(loss, run, "loss", window, **solid)


def _gains(axes: Axes, run: pandas.DataFrame, aside: float, **style: object) -> None:
    """Validation CIDEr with whiskers from start + gain_low to start + gain_high."""
    measured = run[["step", "validation_cider", "gain", "gain_low", "gain_high"]].dropna()
    reach = [measured["gain"] - measured["gain_low"], measured["gain_high"] - measured["gain"]]
    steps, scores = measured["step"].to_numpy() + aside, measured["validation_cider"].to_numpy()
    axes.errorbar(steps, scores, yerr=np.clip(np.stack(reach), 0, None), **style)  # type: ignore[arg-type]


def _scst_titles(panels: np.ndarray, smoothed: str) -> None:
    (reward, cider), (length, share), (advantage, loss) = panels
    _titles(reward, "Reward of sampled captions (dashed: baseline)", smoothed, "CIDEr-D (0 to 10)")
    _titles(cider, "Validation CIDEr (95 % interval of the gain)", "step", "CIDEr-D × 100")
    _titles(length, "Length of sampled captions (dashed: validation)", smoothed, "words")
    _titles(share, "Sampled captions that ended (dashed: distinct)", smoothed, "share")
    _titles(advantage, "Advantage: mean (dashed: deviation)", smoothed, "CIDEr-D (0 to 10)")
    _titles(loss, "Loss: mean of -A log p, of no level by itself", smoothed, "CIDEr-D × nats")
    share.set_ylim(0, 1.05)


def _line(axes: Axes, run: pandas.DataFrame, column: str, window: int, **style: object) -> None:
    measured = run[["step", column]].dropna()
    if measured.empty:  # such as a column that a record of this kind leaves out
        return
    values = measured[column].astype(float).rolling(window, min_periods=1).mean()
    axes.plot(measured["step"].to_numpy(), values.to_numpy(), **style)  # type: ignore[arg-type]


def _window(counts: Sequence[int]) -> int:
    """Steps to average over: a thirtieth of the longest run, and at least one."""
    return max(1, int(np.max(counts)) // 30)


def _smoothing(window: int) -> str:
    return f" (running mean of {window} records)" if window > 1 else ""


def _titles(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x, color=QUIET)
    axes.set_ylabel(y, color=QUIET)
    axes.margins(x=0.03)
