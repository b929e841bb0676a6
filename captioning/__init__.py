"""PaliGemma adapted to remote-sensing image captioning: QLoRA, then self-critical sequence training."""
