"""Image features, encoded once for a whole run: SCST freezes the encoder, so every epoch and every caption shares them.

At PaliGemma-3B's size an image's projected features are 256 x 2048 numbers, 1 MB in bfloat16: those of RISC's training
split, 28 GB, go to a file that the system maps into memory; what is smaller stays in memory.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PaliGemmaProcessor

from captioning.compute.processes import SINGLE_PROCESS, Processes
from captioning.paligemma.model import image_features, pixel_values
from captioning.runtime.progress import progress
from captioning.runtime.resume import Results
from captioning.training.mapped import MAX_RAM_BYTES, allocate


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


def encode_images(
    model: Any,
    processor: PaliGemmaProcessor,
    images: Sequence[bytes],
    batch: int,
    file: Path,
    in_memory: int = MAX_RAM_BYTES,
    processes: Processes = SINGLE_PROCESS,
) -> Float[Tensor, "images tokens hidden"]:
    """Projected features of encoded `images` in their order, on the CPU, in the model's dtype.

    `file` is made where they are of more than `in_memory` bytes, and holds them then: what an interrupted run has
    encoded stays. Several processes share one file and the work. Raises `UserError` where the disk has no room for it.
    """
    shape = (len(images), processor.image_seq_length, model.config.text_config.hidden_size)
    found = allocate(shape, model.dtype, file, "image features", in_memory if processes.count == 1 else 0)
    batches = processes.share(range(0, len(images), batch))
    there = Results(file.with_name(f"{file.name}.{processes.rank}.done")) if file.exists() else None
    begin = 0 if there is None else count_intact_batches(found, batch, batches, there)
    for start in progress(batches[begin:], len(batches) - begin, "encoding images"):
        some = images[start : start + batch]
        with torch.no_grad():
            encoded = image_features(model, pixel_values(processor, some).to(model.device)).pooler_output
        found[start : start + len(some)] = encoded.cpu()
        if there is not None:
            there.add(checksum(found[start : start + len(some)]))
    processes.wait()
    return found


def count_intact_batches(found: Tensor, batch: int, batches: Sequence[int], there: Results) -> int:
    """How many of `batches` an interrupted run has encoded: their checksums are those it noted."""
    for number, (start, noted) in enumerate(zip(batches, there.results, strict=False)):
        if checksum(found[start : start + batch]) != noted:
            there.truncate(number)
            break
    return len(there.results)


def checksum(values: Tensor) -> int:
    return zlib.crc32(values.contiguous().view(torch.uint8).numpy().data)
