"""Image features, encoded once for a whole run: SCST freezes the encoder, so all epochs and captions share them.

At 3B an image's features take 1 MB in bfloat16; the 28 GB of RISC's training split go to a mapped file.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PaliGemmaProcessor

from captioning.adapters.lora import unwrap_adapter
from captioning.compute.processes import SINGLE_PROCESS, Processes, device_folder
from captioning.images.table import draw_ids, read_ids, read_images
from captioning.paligemma.model import image_features, pixel_values
from captioning.runtime.progress import progress
from captioning.runtime.resume import Results
from captioning.training.mapped import MAX_RAM_BYTES, allocate
from captioning.training.run import TrainingRun


@dataclass(frozen=True)
class EncodedImages(Dataset):
    """Ids and features of images, as rows for the Trainer."""

    ids: Sequence[str]
    features: Float[Tensor, "images tokens hidden"]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"id": self.ids[index], "features": self.features[index]}


def encode_split(
    model: PeftModel, processor: PaliGemmaProcessor, split: str, number: int, batch: int, run: TrainingRun
) -> EncodedImages:
    """Encode `number` images of a split, drawn with the run's seed (0: all of them), `batch` at a time."""
    ids = draw_ids(read_ids(Path(f"data/splits/{split}.txt")), number, f"scst {split} {run.seed}")
    images = [example.image for example in read_images(Path("data/captions/images.parquet"), ids)]
    file = device_folder(run.folder, model.device) / f"{split}.features"
    features = encode_images(unwrap_adapter(model), processor, images, batch, file, processes=run.processes)
    return EncodedImages(ids, features)


def encode_images(
    model: Any,
    processor: PaliGemmaProcessor,
    images: Sequence[bytes],
    batch: int,
    file: Path,
    max_ram_bytes: int = MAX_RAM_BYTES,
    processes: Processes = SINGLE_PROCESS,
) -> Float[Tensor, "images tokens hidden"]:
    """Return the projected features of `images` in their order, on the CPU, in the model's dtype. More than
    `max_ram_bytes` go to `file`, where those of an interrupted run are reused."""
    shape = (len(images), processor.image_seq_length, model.config.text_config.hidden_size)
    features = allocate(shape, model.dtype, file, "image features", max_ram_bytes if processes.count == 1 else 0)
    batches = processes.share(range(0, len(images), batch))

    def encode(start: int) -> int:
        inputs = pixel_values(processor, images[start : start + batch]).to(model.device)
        with torch.no_grad():
            features[start : start + batch] = image_features(model, inputs).pooler_output.cpu()
        return checksum(features[start : start + batch])

    if file.exists():
        checksums = Results(file.with_name(f"{file.name}.{processes.rank}.done"))
        pairs = zip(batches, checksums.results, strict=False)
        intact = takewhile(lambda pair: checksum(features[pair[0] : pair[0] + batch]) == pair[1], pairs)
        checksums.truncate(len(list(intact)))
        checksums.map(batches, encode, "encoding images")
    else:
        for start in progress(batches, len(batches), "encoding images"):
            encode(start)
    processes.wait()
    return features


def checksum(values: Tensor) -> int:
    return zlib.crc32(values.contiguous().view(torch.uint8).numpy().data)
