"""The miniature's checkpoints, trained on the spot on drawn pictures.

Base is made in two steps. First the vision tower alone, with throw-away heads for what was drawn (without it nothing
is grounded, and training it along with the decoder wrecks it); then projector and decoder on what the frozen tower
sees. The other checkpoints go on from base in the second way only.
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset
from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor, TrainingArguments
from transformers.modeling_outputs import BaseModelOutputWithPooling

from captioning.checkpoints.miniature import CURRICULA
from captioning.data.world.draw import draw_scene
from captioning.data.world.scenes import Scene, sample_scene
from captioning.paligemma.model import require_suffix_mask, supervised_loss, tokenise
from captioning.training.run import TrainingRun
from captioning.training.trainer import LossTrainer, training_arguments

BATCH, TEXTS = 32, 8  # rows of a step; of texts sorted by length, eight a pass, so that little is padded


def draw_images(images: int, size: int, seed: str) -> tuple[list[Scene], list[Image.Image]]:
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


class ExampleRows(Dataset):
    """Rows of a list of dictionaries, as the Trainer wants them, with their `lengths` where these differ."""

    def __init__(self, rows: Sequence[dict[str, Any]], lengths: Sequence[int] | None = None):
        self.rows, self.lengths = rows, lengths

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


@dataclass(frozen=True)
class Texts:
    """Prompts and answers about `scenes`, `epochs` for each, as a curriculum writes them with the words of captions."""

    curriculum: str
    scenes: Sequence[Scene]
    words: Sequence[str]
    epochs: int

    def examples(self, seed: int) -> list[tuple[str, str]]:
        """Return prompt and answer, scene after scene, epoch after epoch."""
        rng, write = random.Random(f"{self.curriculum} {seed}"), CURRICULA[self.curriculum]
        return [write(scene, self.words, rng) for _ in range(self.epochs) for scene in self.scenes]


def train_tower(
    model: PaliGemmaForConditionalGeneration,
    pixels: Tensor,
    scenes: Sequence[Scene],
    epochs: int,
    learning_rate: float,
    run: TrainingRun,
) -> float:
    """Train the vision tower of `model` in place on the facts of `scenes`; return the last training loss in nats."""
    drawn = [asdict(scene) for scene in scenes]
    classes = {name: sorted({fact[name] for fact in drawn}) for name in drawn[0]}
    labels = [{name: torch.tensor(classes[name].index(fact[name])) for name in classes} for fact in drawn]
    trainer = LossTrainer(
        model=FactHeads(model.model.vision_tower, model.config.vision_config.hidden_size, classes),
        args=_arguments(run, epochs, learning_rate, BATCH // run.processes.count),
        train_dataset=ExampleRows([{"pixels": image, **label} for image, label in zip(pixels, labels, strict=True)]),
        loss=lambda tower, batch, images: tower(**batch) / images,
        processes=run.processes,
        states=run.states("tower"),
    )
    return trainer.train().training_loss


def train_decoder(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    pixels: Tensor,
    texts: Texts,
    learning_rate: float,
    run: TrainingRun,
) -> float:
    """Train projector and decoder in place, with a new text for each image and epoch; return the mean loss in nats a
    token."""
    model.model.vision_tower.requires_grad_(False)
    seen, examples = tower_features(model, pixels), texts.examples(run.seed)
    tokens = processor.tokenizer([" ".join(example) for example in examples], add_special_tokens=False)["input_ids"]
    rows = [{"seen": seen[number % len(seen)], "example": example} for number, example in enumerate(examples)]
    trainer = LossTrainer(
        model=model,
        args=_arguments(run, 1, learning_rate, TEXTS),
        train_dataset=ExampleRows(rows, lengths=list(map(len, tokens))),
        data_collator=lambda examples: collate_texts(processor, examples),
        loss=decoder_loss,
        processes=run.processes,
        states=run.states("decoder"),
    )
    return trainer.train().training_loss


def _arguments(run: TrainingRun, epochs: int, learning_rate: float, rows: int) -> TrainingArguments:
    return training_arguments(
        run,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=BATCH // rows // run.processes.count,
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


def collate_texts(processor: PaliGemmaProcessor, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    prompts, suffixes = zip(*(example["example"] for example in examples), strict=True)
    batch = tokenise(processor, prompts, suffixes)
    require_suffix_mask(batch)
    return batch | {"seen": torch.stack([example["seen"] for example in examples])}


def decoder_loss(model: Any, batch: dict[str, Any], tokens: Any) -> Tensor:
    projected = model.model.multi_modal_projector(batch["seen"])
    return supervised_loss(model, batch | {"features": BaseModelOutputWithPooling(pooler_output=projected)}, tokens)
