"""QLoRA fine-tuning on captions."""
