"""Memory does not grow with the images: what more of them take (their rows) is less than they are large."""

import pytest

from tools.memory import KINDS, measure_in_new_process


@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_is_bounded_and_does_not_grow(kind: str) -> None:
    small, large = measure_in_new_process(kind, 1_000), measure_in_new_process(kind, 3_000)
    assert (small["images"], large["images"]) == (1_000, 3_000)
    assert large["peak_mib"] - small["peak_mib"] < 40, f"2,000 images more are 40 MiB, {small}, {large}"
    assert large["peak_mib"] < 400
