"""Decode images once before training; a step then only normalises their bytes, to what the library's processor returns.

At 224 pixels, RISC's training images take 4 GB, in memory or in a mapped file (training/mapped.py).
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
from captioning.paligemma.model import decode_image, encode_texts, require_prefix_lm_mask
from captioning.runtime.progress import progress
from captioning.training.mapped import MAX_RAM_BYTES, allocate

Pixels = UInt8[Tensor, "images 3 height width"]


def decode_images(
    processor: PaliGemmaProcessor,
    images: Sequence[bytes],
    file: Path,
    max_ram_bytes: int = MAX_RAM_BYTES,
    processes: Processes = SINGLE_PROCESS,
) -> Pixels:
    """Decode `images` to RGB of SigLIP's size, 0 to 255. Several processes share `file` and the work."""
    size = processor.image_processor.size
    shape = (len(images), 3, size["height"], size["width"])
    pixels = allocate(shape, torch.uint8, file, "decoded images", max_ram_bytes if processes.count == 1 else 0)
    share = processes.share(range(len(images)))
    for index in progress(share, len(share), "decoding images"):
        resized = processor.image_processor(
            [decode_image(images[index])], do_rescale=False, do_normalize=False, return_tensors="np"
        )["pixel_values"]
        pixels[index] = torch.from_numpy(np.asarray(resized[0], dtype=np.uint8))
    processes.wait()
    return pixels


def normalise(processor: PaliGemmaProcessor, pixels: Pixels) -> Float[Tensor, "images 3 height width"]:
    """Return `(pixels * rescale_factor - image_mean) / image_std`, as the processor computes it."""
    settings = processor.image_processor
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (settings.image_mean, settings.image_std))
    return (pixels.float() * settings.rescale_factor - mean) / deviation


@dataclass(frozen=True)
class DecodedCollator:
    """Make a batch of examples `{image: decoded, prompt, caption}`. Raises `ValueError` if its labels would leak."""

    processor: PaliGemmaProcessor

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        prompts, captions = ([example[key] for example in examples] for key in ("prompt", "caption"))
        batch = encode_texts(self.processor, prompts, captions)
        require_prefix_lm_mask(batch)
        pixels = torch.stack([example["image"] for example in examples])
        return batch | {"pixel_values": normalise(self.processor, pixels)}
