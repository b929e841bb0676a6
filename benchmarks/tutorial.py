"""The tutorial's collator, the peer of training/pixels.py: it runs the library's processor on each row of a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PaliGemmaProcessor

from captioning.paligemma.model import decode_image, require_prefix_lm_mask


@dataclass(frozen=True)
class Collator:
    """Make a batch of examples `{image: bytes, prompt: str, caption: str}`. Raises `ValueError` if the mask leaks."""

    processor: PaliGemmaProcessor

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch = self.processor(
            images=[decode_image(example["image"]) for example in examples],
            text=["<image>" + example["prompt"] for example in examples],
            suffix=[example["caption"] for example in examples],
            return_tensors="pt",
            padding="longest",
        )
        require_prefix_lm_mask(batch)
        return dict(batch)
