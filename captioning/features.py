"""Image features, encoded once for a whole run: SCST freezes the encoder, so every epoch and every caption shares them.

At PaliGemma-3B's size an image's projected features are 256 x 2048 numbers, 1 MB in bfloat16: those of RISC's training
split, 28 GB, go to a file that the system maps into memory; what is smaller stays in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PaliGemmaProcessor

from captioning.paligemma import image_features, pixels
from captioning.runlog import UserError, progress

IN_MEMORY = 4 * 2**30  # bytes; more goes to a file


@dataclass(frozen=True)
class EncodedImages(Dataset):
    """Images by id with their features, as the Trainer's rows."""

    ids: Sequence[str]
    features: Float[Tensor, "images tokens hidden"]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"id": self.ids[index], "features": self.features[index]}


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows of `EncodedImages` as a batch: `id`, a list, and `features: [images, tokens, hidden]`."""
    return {"id": [row["id"] for row in rows], "features": torch.stack([row["features"] for row in rows])}


def encode_all(
    model: Any,
    processor: PaliGemmaProcessor,
    images: Sequence[bytes],
    batch: int,
    file: Path,
    in_memory: int = IN_MEMORY,
) -> Float[Tensor, "images tokens hidden"]:
    """Projected features of encoded `images` in their order, on the CPU, in the model's dtype.

    `file` is made where they are of more than `in_memory` bytes, and holds them then. Raises `UserError` where the disk
    has no room for it.
    """
    shape = (len(images), processor.image_seq_length, model.config.text_config.hidden_size)
    found = _room(shape, model.dtype, file, in_memory)
    for start in progress(range(0, len(images), batch), -(-len(images) // batch), "encoding images"):
        some = images[start : start + batch]
        with torch.no_grad():
            encoded = image_features(model, pixels(processor, some).to(model.device)).pooler_output
        found[start : start + len(some)] = encoded.cpu()
    return found


def _room(shape: tuple[int, int, int], dtype: torch.dtype, file: Path, in_memory: int) -> Tensor:
    size = shape[0] * shape[1] * shape[2]
    if size * dtype.itemsize <= in_memory:
        return torch.empty(shape, dtype=dtype)
    file.parent.mkdir(parents=True, exist_ok=True)
    free = disk_usage(file.parent).free
    if (needed := size * dtype.itemsize) > free:  # a mapped file that the disk cannot hold kills the process later
        raise UserError(f"{file}: image features take {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free")
    return torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape)
