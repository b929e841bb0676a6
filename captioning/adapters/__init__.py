"""LoRA adapters and their folder."""
