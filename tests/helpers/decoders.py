"""PaliGemma's decoder and PaliGemma 2's: what must hold for both."""

import pytest

BOTH = pytest.mark.parametrize("decoder", ["gemma", "gemma2"], indirect=True)
