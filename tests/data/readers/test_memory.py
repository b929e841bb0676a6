"""Memory does not grow with the images: what more of them take (their rows) is less than they are large."""

import pytest

from tools.memory import KINDS, measure_in_new_process

LIMIT = 40  # MiB, the size of 2,000 images
TRIES = 3  # beside other work a peak varies by 30 MiB; what grows with the images grows each time


@pytest.mark.parametrize("kind", KINDS)
def test_the_peak_is_bounded_and_does_not_grow(kind: str) -> None:
    growths = []
    for _ in range(TRIES):
        small, large = measure_in_new_process(kind, 1_000), measure_in_new_process(kind, 3_000)
        assert (small["images"], large["images"]) == (1_000, 3_000) and large["peak_mib"] < 400
        growths.append(large["peak_mib"] - small["peak_mib"])
        if growths[-1] < LIMIT:
            return
    raise AssertionError(f"2,000 images more take {growths} MiB")
