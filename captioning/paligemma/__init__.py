"""PaliGemma: its inputs, its loss, its folder."""
