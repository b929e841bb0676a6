"""The tutorial's collator: the library's processor on every row of every step. The peer of supervised/pixels.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers import PaliGemmaProcessor

from captioning.paligemma.model import decode_image, require_suffix_mask


@dataclass(frozen=True)
class Collator:
    """Examples `{image: bytes, prompt: str, caption: str}` to a batch; raises ValueError where the mask would leak."""

    processor: PaliGemmaProcessor

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        batch = self.processor(
            images=[decode_image(example["image"]) for example in examples],
            text=["<image>" + example["prompt"] for example in examples],
            suffix=[example["caption"] for example in examples],
            return_tensors="pt",
            padding="longest",
        )
        require_suffix_mask(batch)
        return dict(batch)
