"""Run a test with PaliGemma's decoder and with PaliGemma 2's."""

import pytest

BOTH = pytest.mark.parametrize("decoder", ["gemma", "gemma2"], indirect=True)
