"""LoRA adapters: the model part, their folder, their model card."""
