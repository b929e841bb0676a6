"""docs/planning.md is what its command prints; hours by hand; what fits; measured values beside."""

from pathlib import Path

import pytest

from benchmarks.planning import ASSUMED, CHIPS, Chip, Work, cell, committed, measured, page
from captioning.limits.memory import Need
from captioning.params.load import load_params

DOCUMENT = Path(__file__).parents[2] / "docs/planning.md"


def work(**changed: float) -> Work:
    need = Need("training_rows", 16, "rows", {"weights": 4_000_000_000}, lambda rows: rows * 10**9, "cuda", 16)
    numbers = {"training": 0.0, "prefill": 0.0, "read": 0.0} | changed
    return Work("mix", "mix", **numbers, need=need)


def test_the_document_is_what_the_command_prints() -> None:
    """Some twenty seconds of a core a row's shape: operations and bytes of PaliGemma-3B, counted anew."""
    told = page(load_params(), committed())
    assert told == DOCUMENT.read_text(encoding="utf-8"), "run `python -m benchmarks.planning > docs/planning.md`"
    assert "base-r16 (22,597,632 weights)" in told and "full-adapter (14,179,072 weights)" in told


@pytest.mark.parametrize(
    ("changed", "hours"),
    [
        ({"training": 3600e12 * ASSUMED.training}, 1.0),
        ({"prefill": 1800e12 * ASSUMED.prefill}, 0.5),
        ({"read": 7200e9 * ASSUMED.decoding}, 2.0),
    ],
)
def test_hours_by_hand(changed: dict[str, float], hours: float) -> None:
    assert work(**changed).hours(Chip(1e12, 1e9, 1)) == pytest.approx(hours)


def test_what_fits_is_told_by_a_number_that_divides_a_step() -> None:
    assert "fits" not in cell(work(), CHIPS["H200"])
    assert cell(work(), CHIPS["T4"]).endswith("fits 8")
    assert cell(work(), Chip(1e12, 1e9, 2e9)).endswith("does not fit")


def test_measured_values_stand_beside() -> None:
    found = {"H200": {"mix": {"hours": 0.25, "gigabytes": 40.0}}, "T4": {}}
    assert measured(work(), found) == "H200: 0.25 h, 40 GB"
    assert measured(work(), {}) == "not measured"
