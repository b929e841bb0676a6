"""Pictures decoded ahead of training, each once: a step takes them as bytes and normalises them, no more.

At 224 pixels those of RISC's training split are 4 GB, which stand in memory or in a mapped file (training/mapped.py).
The collator's rows equal those of the library's processor, run on every row of every step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import PaliGemmaProcessor

from captioning.compute.processes import SINGLE_PROCESS, Processes
from captioning.paligemma.model import decode_image, require_suffix_mask, tokenise
from captioning.runtime.progress import progress
from captioning.training.mapped import MAX_RAM_BYTES, allocate

Pixels = UInt8[Tensor, "images 3 height width"]


def decode_images(
    processor: PaliGemmaProcessor, images: Sequence[bytes], file: Path, in_memory: int = MAX_RAM_BYTES,
    processes: Processes = SINGLE_PROCESS,
) -> Pixels:  # fmt: skip
    """Encoded `images` as RGB of the size that SigLIP takes, 0 to 255; several processes share `file` and the work."""
    size = processor.image_processor.size
    shape = (len(images), 3, size["height"], size["width"])
    found = allocate(shape, torch.uint8, file, "decoded pictures", in_memory if processes.count == 1 else 0)
    mine = processes.share(range(len(images)))
    for place in progress(mine, len(mine), "decoding images"):
        resized = processor.image_processor(
            [decode_image(images[place])], do_rescale=False, do_normalize=False, return_tensors="np"
        )["pixel_values"]
        found[place] = torch.from_numpy(np.asarray(resized[0], dtype=np.uint8))
    processes.wait()
    return found


def normalise(processor: PaliGemmaProcessor, pixels: Pixels) -> Float[Tensor, "images 3 height width"]:
    """As the processor does: times its scale, minus its mean, over its deviation."""
    scale = processor.image_processor
    mean, deviation = (torch.tensor(of).view(3, 1, 1) for of in (scale.image_mean, scale.image_std))
    return (pixels.float() * scale.rescale_factor - mean) / deviation


@dataclass(frozen=True)
class DecodedCollator:
    """Examples `{image: decoded, prompt, caption}` to a batch; raises ValueError where the mask would leak."""

    processor: PaliGemmaProcessor

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        prompts, captions = ([example[key] for example in examples] for key in ("prompt", "caption"))
        batch = tokenise(self.processor, prompts, captions)
        require_suffix_mask(batch)
        pixels = torch.stack([example["image"] for example in examples])
        return batch | {"pixel_values": normalise(self.processor, pixels)}
