"""Curves of the two training stages, drawn from their step records.

Deliberate difference: where one variant was trained with several seeds, each seed is a line of its own in the variant's
colour; nothing is averaged away. Per-step values are smoothed by a running mean whose width the axis states.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from captioning.figures import BLUE, GREEN, ORANGE, PALETTE, QUIET, STYLE, VERMILION

DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
MARKERS = "osD^vPX*"
Records = Mapping[str, Sequence[pandas.DataFrame]]  # variant: one table of step records a seed


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


def scst_curves(records: Sequence[pandas.DataFrame]) -> Figure:
    """What SCST did, one line a seed: rewards, validation CIDEr × 100 and mean caption length (words) by step.

    Columns used: `step`, `reward`, `baseline`, `validation_cider`, `length`, `ended`, `distinct`. Raises `ValueError`
    without records.
    """
    if not len(records):
        raise ValueError("no step records to draw; run SCST first")
    window = _window([run["reward"].count() for run in records])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 6.4), layout="constrained")
        (reward, cider), (length, share) = figure.subplots(2, 2)
        for seed, run in enumerate(records):
            first = "" if seed == 0 else "_"
            _line(reward, run, "reward", window, color=BLUE, label=f"{first}sampled captions")
            _line(reward, run, "baseline", window, color=VERMILION, linestyle=DASHES[1], label=f"{first}baseline")
            _line(cider, run, "validation_cider", 1, color=GREEN, marker="o", markersize=5)
            _line(length, run, "length", window, color=BLUE)
            _line(share, run, "ended", window, color=BLUE, label=f"{first}ended by <eos>")
            _line(share, run, "distinct", window, color=ORANGE, linestyle=DASHES[1], label=f"{first}distinct")
        smoothed = "step" + _smoothing(window)
        _titles(reward, "Reward", smoothed, "CIDEr-D (0 to 10)")
        _titles(cider, "Validation, greedy captions", "step", "CIDEr-D × 100")
        _titles(length, "Length of sampled captions", smoothed, "words")
        _titles(share, "Sampled captions: ended, distinct", smoothed, "share")
        reward.legend()
        share.legend()
        share.set_ylim(0, 1.05)
    return figure


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
