"""The miniature's checkpoints, trained on the spot on drawn pictures.

Base is made in two steps. First the vision tower alone, with throw-away heads for what was drawn (without it nothing
is grounded, and training it along with the decoder wrecks it); then projector and decoder on what the frozen tower
sees. The other checkpoints go on from base in the second way only.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from captioning.checkpoints.miniature import CURRICULA
from captioning.compute.processes import SINGLE_PROCESS, Processes
from captioning.data.world.draw import draw_scene
from captioning.data.world.scenes import Scene, sample_scene, scene_to_facts
from captioning.paligemma.model import check_mask, supervised_loss, tokenise
from captioning.runtime.resume import states
from captioning.training.trainer import LossTrainer, training_arguments

BATCH, TEXTS = 32, 8  # rows of a step; of texts sorted by length, eight a pass, so that little is padded


def draw_pictures(images: int, size: int, seed: str) -> tuple[list[Scene], list[Image.Image]]:
    """Scenes and their pictures, of a seed that the data set does not use."""
    rng = random.Random(f"pretraining {seed}")
    scenes = [sample_scene(rng) for _ in range(images)]
    return scenes, [draw_scene(scene, size, rng) for scene in scenes]


def pixel_values(processor: PaliGemmaProcessor, pictures: Sequence[Image.Image]) -> Tensor:
    """Normalised pixels, [images, 3, size, size]."""
    return processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]


class FactHeads(nn.Module):
    """A vision tower with one throw-away classifier a fact, on the mean of its patch features."""

    def __init__(self, tower: nn.Module, width: int, classes: dict[str, list[Any]]):
        super().__init__()
        self.tower = tower
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in classes.items()})

    def forward(self, pixels: Tensor, **labels: Tensor) -> Tensor:
        """Nats of all facts, summed over the pictures."""
        features = self.tower(pixels).last_hidden_state.mean(dim=1)
        losses = [cross_entropy(head(features), labels[name], reduction="sum") for name, head in self.heads.items()]
        return torch.stack(losses).sum()


class Rows(Dataset):
    """Rows of a list of dictionaries, as the Trainer wants them, with their `lengths` where these differ."""

    def __init__(self, rows: Sequence[dict[str, Any]], lengths: Sequence[int] | None = None):
        self.rows, self.lengths = rows, lengths

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def train_tower(
    model: PaliGemmaForConditionalGeneration,
    pixels: Tensor,
    scenes: Sequence[Scene],
    epochs: int,
    learning_rate: float,
    seed: int,
    scratch: Path,
    every: float | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> float:
    """Train the vision tower of `model` in place on the facts of `scenes`; returns the last training loss, nats."""
    drawn = [scene_to_facts(scene) for scene in scenes]
    classes = {name: sorted({fact[name] for fact in drawn}) for name in drawn[0]}
    rows = Rows(
        [
            {"pixels": pixels[i], **{name: torch.tensor(classes[name].index(fact[name])) for name in classes}}
            for i, fact in enumerate(drawn)
        ]
    )
    heads = FactHeads(model.model.vision_tower, model.config.vision_config.hidden_size, classes)
    trainer = LossTrainer(
        model=heads,
        args=_arguments(scratch, seed, epochs, learning_rate, BATCH // processes.count, processes),
        train_dataset=rows,
        loss=lambda tower, batch, pictures: tower(**batch) / pictures,
        processes=processes,
        states=states(scratch / str(processes.rank) / "tower", every),
    )
    return trainer.train().training_loss


def train_decoder(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    pixels: Tensor,
    scenes: Sequence[Scene],
    words: Sequence[str],
    curriculum: str,
    epochs: int,
    learning_rate: float,
    seed: int,
    scratch: Path,
    every: float | None = None,
    processes: Processes = SINGLE_PROCESS,
) -> float:
    """Train projector and decoder in place, a new text an image and epoch; returns the mean loss, nats a token."""
    model.model.vision_tower.requires_grad_(False)
    rng = random.Random(f"{curriculum} {seed}")
    seen = tower_features(model, pixels)
    examples = [CURRICULA[curriculum](scene, words, rng) for _ in range(epochs) for scene in scenes]
    tokens = processor.tokenizer([" ".join(example) for example in examples], add_special_tokens=False)["input_ids"]
    rows = [{"seen": seen[place % len(scenes)], "example": example} for place, example in enumerate(examples)]
    trainer = LossTrainer(
        model=model,
        args=_arguments(scratch, seed, 1, learning_rate, TEXTS, processes),
        train_dataset=Rows(rows, lengths=list(map(len, tokens))),
        data_collator=lambda examples: _collate(processor, examples),
        loss=_decoder_loss,
        processes=processes,
        states=states(scratch / str(processes.rank) / "decoder", every),
    )
    return trainer.train().training_loss


def _arguments(scratch: Path, seed: int, epochs: int, learning_rate: float, rows: int, processes: Processes) -> Any:
    return training_arguments(
        scratch,
        seed,
        "cpu",
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=BATCH // rows // processes.count,
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        weight_decay=0.01,
        adam_beta2=0.95,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        logging_steps=50,
    )


def tower_features(model: PaliGemmaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """What the frozen tower sees: [images, patches, width], computed once."""
    with torch.no_grad():
        return torch.cat([model.model.vision_tower(part).last_hidden_state for part in pixels.split(256)])


def _collate(processor: PaliGemmaProcessor, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    prompts, suffixes = zip(*(example["example"] for example in examples), strict=True)
    batch = tokenise(processor, prompts, suffixes)
    check_mask(batch)
    return batch | {"seen": torch.stack([example["seen"] for example in examples])}


def _decoder_loss(model: Any, batch: dict[str, Any], tokens: Any) -> Tensor:
    projected = model.model.multi_modal_projector(batch["seen"])
    return supervised_loss(model, batch | {"features": BaseModelOutputWithPooling(pooler_output=projected)}, tokens)
