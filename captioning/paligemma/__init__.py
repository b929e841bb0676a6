"""PaliGemma: its checkpoint folder, its inputs and its loss."""
