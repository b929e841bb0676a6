"""Merge an adapter into the checkpoint's unquantised weights, and caption with the result.

The weights are in the dtype that the row computes in: PaliGemma-3B in bfloat16 is 5.9 GB, in memory once at a time.
peft computes B A in float32, adds it, and rounds once.
"""

import math
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from psutil import virtual_memory
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

from captioning.adapters.lora import load_adapter
from captioning.base.errors import UserError
from captioning.commands.trained_rows import TrainedRow
from captioning.compute.seeds import seed_everything
from captioning.decoding import greedy_captions
from captioning.images.table import read_images
from captioning.paligemma.folder import require_checkpoint
from captioning.paligemma.model import LOCAL_FILES, load_processor
from captioning.paligemma.safetensors_header import read_shapes
from captioning.runtime.paths import IMAGES
from captioning.runtime.progress import progress

WORK_BYTES = 10**9  # of the libraries, and of one layer's product
SHARD = "4GB"  # of a file of weights


def merge_adapter(row: TrainedRow, device: str, folder: Path) -> None:
    """Write the merged model and its processor to `folder`, which exists. Raises `UserError`."""
    require_checkpoint(row.checkpoint)
    dtype = getattr(torch, row.machine.compute)
    require_room(row.checkpoint, dtype, device, folder)
    seed_everything(0, row.machine.threads)
    model = load_adapter(_load(row.checkpoint, dtype, device), Path(str(row.adapter)))
    model.merge_and_unload().save_pretrained(folder, safe_serialization=True, max_shard_size=SHARD)
    processor = PaliGemmaProcessor.from_pretrained(row.checkpoint, backend="pil", local_files_only=True)
    processor.save_pretrained(folder)
    for path in folder.iterdir():  # weights are for their owner alone otherwise
        path.chmod(stat.S_IMODE((folder / "config.json").stat().st_mode))


def caption_images(
    row: TrainedRow, device: str, folder: Path, ids: Sequence[str], maximum_tokens: int, batch: int
) -> list[str]:
    """Return the captions of the images `ids` by the model in `folder`, decoded as the `generate` stage decodes."""
    model, processor = _load(folder, getattr(torch, row.machine.compute), device), load_processor(folder)
    images = [example.image for example in read_images(IMAGES, ids)]
    stream = greedy_captions(model, processor, images, row.prompt, maximum_tokens, batch)
    return [caption.text for caption in progress(stream, len(images), "captions")]


def _load(folder: Path, dtype: torch.dtype, device: str) -> Any:
    model, loading_info = PaliGemmaForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, device_map={"": device}, **LOCAL_FILES
    )
    if missing := sorted(loading_info["missing_keys"]):
        raise UserError(f"{folder}: its weights lack {len(missing)} tensors, such as {missing[0]}; fetch it again")
    return model.requires_grad_(False).eval()


def require_room(checkpoint: Path, dtype: torch.dtype, device: str, folder: Path) -> None:
    """Raise `UserError` if the weights do not fit into the device's memory, or onto the disk."""
    shapes = [shape for path in checkpoint.glob("*.safetensors") for _, shape in read_shapes(path).values()]
    size = sum(map(math.prod, shapes)) * dtype.itemsize
    free = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else virtual_memory().available
    if size + WORK_BYTES > free:
        needed = f"{(size + WORK_BYTES) / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
        raise UserError(f"{checkpoint}: merging takes {needed} on {device}; choose another --device")
    if size > (free := shutil.disk_usage(folder).free):
        raise UserError(
            f"{folder.parent}: the model takes {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; free some"
        )
