"""Write a PaliGemma-3B of true shape: `python -m benchmarks.true_shape FOLDER DEVICE`.

Its weights are random; its tokenizer has the true size, and each piece is a word of letters. So captions are random
words that never end before the limit, and PTB tokens of plain words need no JVM, just like those of real captions.
"""

import string
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch
from transformers import GemmaTokenizer, PaliGemmaConfig, PaliGemmaForConditionalGeneration

from captioning.checkpoints.miniature import BYTE_TOKENS, SPECIAL_TOKENS, make_processor

SIDE, PATCH = 224, 14  # pixels
VOCABULARY = 257_216  # with <image>, <loc>, <seg> and padding to a multiple of 64
PIECES = 256_000


def make_tokenizer() -> GemmaTokenizer:
    """Make 256,000 pieces: special ones, bytes, letters, and words of one to four letters."""
    words = ("".join(letters) for length in (1, 2, 3, 4) for letters in product(string.ascii_lowercase, repeat=length))
    pieces = [*SPECIAL_TOKENS, *BYTE_TOKENS, "▁", *string.ascii_letters]
    pieces += [f"▁{word}" for _, word in zip(range(PIECES - len(pieces)), words, strict=False)]
    return GemmaTokenizer(vocab={piece: id_ for id_, piece in enumerate(pieces)}, merges=[])


def make_config(image_token: int) -> PaliGemmaConfig:
    """Return the published shape: SigLIP So400m/14 at 224 pixels and Gemma 2B."""
    text: dict[str, Any] = dict(model_type="gemma", hidden_size=2048, num_hidden_layers=18, num_attention_heads=8)
    text |= dict(num_key_value_heads=1, head_dim=256, intermediate_size=16_384, vocab_size=VOCABULARY)
    vision: dict[str, Any] = dict(model_type="siglip_vision_model", hidden_size=1152, num_hidden_layers=27)
    vision |= dict(num_attention_heads=16, intermediate_size=4304, patch_size=PATCH, image_size=SIDE)
    vision |= dict(projection_dim=2048, vision_use_head=False)
    return PaliGemmaConfig(text_config=text, vision_config=vision, projection_dim=2048, image_token_index=image_token)


def write(folder: Path, device: str) -> None:
    """Write the checkpoint: 5.9 GB in bfloat16, sharded safetensors. Torch's global seed decides the weights."""
    processor = make_processor(make_tokenizer(), SIDE)
    processor.image_processor.image_seq_length = processor.image_seq_length = (SIDE // PATCH) ** 2
    config = make_config(processor.image_token_id)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = PaliGemmaForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder, safe_serialization=True, max_shard_size="2GB")
    processor.save_pretrained(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
