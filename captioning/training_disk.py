"""What a training writes in bytes (captioning/disk.py): its adapter, what it goes on from, and files that hold what is
too large for memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PaliGemmaConfig, PaliGemmaProcessor

from captioning import resume
from captioning.activations import meta_model
from captioning.disk import CARD, Written
from captioning.mapped import IN_MEMORY
from captioning.memory import FLOAT32, trainable
from captioning.resume import STATES

ADAPTERS = Path("models/adapters")
COPIES = 4  # adapters in a state to go on from: weights, the best weights, two moments


def finetune_files(
    name: str, checkpoint: Path, recipe: dict[str, Any], processor: PaliGemmaProcessor, images: Mapping[str, int],
    processes: int,
) -> list[Written]:  # fmt: skip
    """Of fine-tuning `name` by `recipe` on `images` of each split, which are decoded once."""
    size = processor.image_processor.size
    decoded = {f"{split}.pixels": 3 * size["height"] * size["width"] * one for split, one in images.items()}
    return _training(name, adapter_bytes(checkpoint, recipe), decoded, processes)


def scst_files(
    name: str, checkpoint: Path, recipe: dict[str, Any], start: Path, splits: Mapping[str, int], processes: int
) -> list[Written]:
    """Of refining the adapter in `start`; `splits`: how many images each has, of which SCST takes some."""
    settings = recipe["scst"]
    wanted = {"train": settings["images"], "validation": settings["validation_images"]}
    one = feature_bytes(checkpoint, recipe["machine"]["compute"])
    features = {f"{split}.features": one * min(wanted[split] or held, held) for split, held in splits.items()}
    weights = sum(path.stat().st_size for path in start.glob("*.safetensors"))
    return _training(name, weights, features, processes)


def _training(name: str, adapter: int, files: Mapping[str, int], processes: int) -> list[Written]:
    """`files`: what stands in memory, or, where it is large or several processes share it, in a file of this name."""
    mapped = {what: size for what, size in files.items() if processes > 1 or size > IN_MEMORY}
    return [
        Written("adapter", ADAPTERS / name, adapter + CARD),
        Written("states to go on from", resume.place(), (STATES + 1) * COPIES * adapter * processes, output=False),
        *(Written(file, resume.place() / file, size, output=False) for file, size in mapped.items()),
    ]


def adapter_bytes(checkpoint: Path, recipe: dict[str, Any]) -> int:
    """Of the weights of an adapter, which is kept in float32."""
    return FLOAT32 * trainable(meta_model(checkpoint, recipe["machine"]["compute"], "cpu", recipe["lora"]).model)


def feature_bytes(checkpoint: Path, compute: str) -> int:
    """Of one image's projected features."""
    config = PaliGemmaConfig.from_pretrained(checkpoint, local_files_only=True)
    tokens = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    return int(tokens * config.text_config.hidden_size * getattr(torch, compute).itemsize)
