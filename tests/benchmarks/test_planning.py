"""docs/planning.md is up to date; hours, largest batches and measured values are right."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import planning
from benchmarks.planning import (
    ASSUMED,
    CHIPS,
    SUFFIX,
    Chip,
    Counts,
    Planner,
    Work,
    format_cell,
    format_measured,
    make_page,
    read_measured,
)
from captioning.limits.memory import Need
from captioning.params.load import load_params

DOCUMENT = Path(__file__).parents[2] / "docs/planning.md"


def make_work(**changes: Any) -> Work:
    need = Need("training_rows", 16, "rows", {"weights": 4_000_000_000}, lambda rows: rows * 10**9, "cuda", 16)
    decoding = Need("decoding_batch", 256, "images", {"weights": 4_000_000_000}, lambda n: n * 10**8, "cuda")
    numbers = {"training": 0.0, "prefill": 0.0, "sampled": 0, "captioned": 0, "weights": 0.0} | changes
    return Work("mix", "mix", **numbers, need=need, decoding=decoding)


def test_the_document_is_up_to_date() -> None:
    text = make_page(load_params(), read_measured())
    assert text == DOCUMENT.read_text(encoding="utf-8"), "run `python -m benchmarks.planning > docs/planning.md`"
    assert "base-r16 (22,597,632 weights)" in text and "full-adapter (14,179,072 weights)" in text


@pytest.mark.parametrize(
    ("changes", "hours"),
    [
        ({"training": 3600e12 * ASSUMED.training}, 1.0),
        ({"prefill": 1800e12 * ASSUMED.prefill}, 0.5),
        ({"captioned": 65, "weights": 1800e9 * ASSUMED.decoding / SUFFIX}, 1.0),  # 64 fit, so there are two batches
        ({"sampled": 9, "weights": 1800e9 * ASSUMED.decoding / SUFFIX}, 1.0),  # 8 fit
    ],
)
def test_hours_by_hand(changes: dict[str, float], hours: float) -> None:
    assert make_work(**changes).hours(Chip(1e12, 1e9, 16e9)) == pytest.approx(hours)


def test_the_largest_batch_that_fits_divides_a_step() -> None:
    assert format_cell(make_work(), CHIPS["H200"]).endswith("16 in 22 GB")
    assert format_cell(make_work(), CHIPS["T4 in float16"]).endswith("8 in 13 GB")
    assert format_cell(make_work(), Chip(1e12, 1e9, 2e9)) == "does not fit"


def test_models_of_one_and_two_layers_give_the_counts_of_deeper_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operations and bytes to the last digit, for a training and a refinement at PaliGemma-3B's widths. The whole depth
    of 27 and 18 layers, which are alike, would take a minute."""
    params = load_params()

    def count() -> list[Counts]:
        planner = Planner(params, tmp_path)
        planner.depths = 5, 7
        lora = planner.lora("base-r4")
        return [planner.supervised(lora), planner.refined(lora, False)]

    extrapolated = count()
    monkeypatch.setattr(planning, "extrapolate", lambda function, *depths: function(*depths))
    assert count() == extrapolated


def test_measured_values_are_shown() -> None:
    measured = {"H200": {"rows": {"mix": {"hours": 0.25, "gigabytes": 40.0}}}, "T4": {"rows": {}}}
    assert format_measured(make_work(), measured) == "H200: 0.25 h, 40 GB"
    assert format_measured(make_work(), {}) == "not measured"
