"""docs/planning.md is up to date; hours, largest batches and measured values are right."""

from pathlib import Path

import pytest

from benchmarks.planning import CHIPS, EFFICIENCY, Chip, Work, format_cell, format_measured, page, read_measured
from captioning.limits.memory import Need
from captioning.params.load import load_params

DOCUMENT = Path(__file__).parents[2] / "docs/planning.md"


def make_work(**changes: float) -> Work:
    need = Need("training_rows", 16, "rows", {"weights": 4_000_000_000}, lambda rows: rows * 10**9, "cuda", 16)
    numbers = {"training": 0.0, "prefill": 0.0, "read": 0.0} | changes
    return Work("mix", "mix", **numbers, need=need)


def test_the_document_is_up_to_date() -> None:
    """This takes twenty seconds of a core for each shape of PaliGemma-3B."""
    text = page(load_params(), read_measured())
    assert text == DOCUMENT.read_text(encoding="utf-8"), "run `python -m benchmarks.planning > docs/planning.md`"
    assert "base-r16 (22,597,632 weights)" in text and "full-adapter (14,179,072 weights)" in text


@pytest.mark.parametrize(
    ("changes", "hours"),
    [
        ({"training": 3600e12 * EFFICIENCY.training}, 1.0),
        ({"prefill": 1800e12 * EFFICIENCY.prefill}, 0.5),
        ({"read": 7200e9 * EFFICIENCY.decoding}, 2.0),
    ],
)
def test_hours_by_hand(changes: dict[str, float], hours: float) -> None:
    assert make_work(**changes).hours(Chip(1e12, 1e9, 1)) == pytest.approx(hours)


def test_the_largest_batch_that_fits_divides_a_step() -> None:
    assert "fits" not in format_cell(make_work(), CHIPS["H200"])
    assert format_cell(make_work(), CHIPS["T4"]).endswith("fits 8")
    assert format_cell(make_work(), Chip(1e12, 1e9, 2e9)).endswith("does not fit")


def test_measured_values_are_shown() -> None:
    measured = {"H200": {"mix": {"hours": 0.25, "gigabytes": 40.0}}, "T4": {}}
    assert format_measured(make_work(), measured) == "H200: 0.25 h, 40 GB"
    assert format_measured(make_work(), {}) == "not measured"
