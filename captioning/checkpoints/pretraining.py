"""Pre-train the miniature's checkpoints on drawn images and, if the data set is not drawn, on its tags.

Base has two trainings. The first trains the vision tower alone, with temporary heads for the facts of each drawn image,
then for the tags of the data set: without it, captions ignore the image, and training the tower together with the
decoder ruins it. The second trains projector and decoder on the features of the frozen tower. The other checkpoints
continue from base with the second.
"""

import random
from collections.abc import Callable, Sequence
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
from captioning.checkpoints.tags import TaggedPixels, TagHead, TagRows, count_tag_epochs, decode_tagged
from captioning.data.tags import TaggedImage
from captioning.data.world.draw import draw_scene
from captioning.data.world.scenes import Scene, sample_scene
from captioning.paligemma.model import encode_texts, require_prefix_lm_mask, supervised_loss
from captioning.params.sections import BaseTraining, MiniatureTraining
from captioning.training.run import TrainingRun
from captioning.training.trainer import LossTrainer, training_arguments

OPTIONS = {"weight_decay": 0.01, "adam_beta2": 0.95, "lr_scheduler_type": "cosine", "warmup_steps": 0.05}
BATCH, MICRO_BATCH = 32, 8  # rows of a step; micro-batches of texts are sorted by length, so little is padded


def draw_images(count: int, size: int, seed: str) -> tuple[list[Scene], list[Image.Image]]:
    """Draw scenes and their images with a seed that the data set does not use."""
    rng = random.Random(f"pretraining {seed}")
    scenes = [sample_scene(rng) for _ in range(count)]
    return scenes, [draw_scene(scene, size, rng) for scene in scenes]


def pixel_values(processor: PaliGemmaProcessor, images: Sequence[Image.Image]) -> Tensor:
    """Return normalised pixels, [images, 3, size, size]."""
    return processor.image_processor(list(images), return_tensors="pt")["pixel_values"]


class FactHeads(nn.Module):
    """A vision tower with a temporary classifier for each fact, on the mean of its patch features."""

    def __init__(self, tower: nn.Module, width: int, classes: dict[str, list[Any]]):
        super().__init__()
        self.tower = tower
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in classes.items()})

    def forward(self, pixels: Tensor, **labels: Tensor) -> Tensor:
        """Return the cross-entropy of all facts in nats, summed over the images."""
        features = self.tower(pixels).last_hidden_state.mean(dim=1)
        losses = [cross_entropy(head(features), labels[name], reduction="sum") for name, head in self.heads.items()]
        return torch.stack(losses).sum()


class ExampleRows(Dataset):
    """Rows for the Trainer, with their `lengths` if these differ."""

    def __init__(self, rows: Sequence[dict[str, Any]], lengths: Sequence[int] | None = None):
        self.rows, self.lengths = rows, lengths

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


@dataclass(frozen=True)
class CurriculumTexts:
    """The examples of a curriculum: one for each scene and epoch, with the words of the captions."""

    curriculum: str
    scenes: Sequence[Scene]
    words: Sequence[str]
    epochs: int

    def examples(self, seed: int) -> list[tuple[str, str]]:
        """Return prompts and suffixes, scene after scene, epoch after epoch."""
        rng, write = random.Random(f"{self.curriculum} {seed}"), CURRICULA[self.curriculum]
        return [write(scene, self.words, rng) for _ in range(self.epochs) for scene in self.scenes]


def train_checkpoint(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    name: str,
    words: Sequence[str],
    settings: MiniatureTraining,
    run: TrainingRun,
    images: Sequence[TaggedImage] = (),
) -> None:
    """Train the checkpoint `name` in place on images drawn for it and on tagged `images`.

    This trains its decoder, in `BaseTraining` first its tower.
    """
    size = model.config.vision_config.image_size
    scenes, drawn = draw_images(settings.images, size, f"{name} {run.seed}")
    pixels, curriculum = pixel_values(processor, drawn), name
    tagged = decode_tagged(processor, images, settings.tag_examples, run)
    if isinstance(settings, BaseTraining):
        train_tower(model, pixels, scenes, settings.tower_epochs, settings.tower_learning_rate, run)
        if tagged:
            epochs = count_tag_epochs(settings.tower_tag_examples, len(tagged.pixels))
            train_tower_on_tags(model, tagged, epochs, settings.tower_learning_rate, run)
        curriculum = "base"
    texts = CurriculumTexts(curriculum, scenes, words, settings.epochs)
    train_decoder(model, processor, pixels, texts, settings.learning_rate, run, tagged)


def train_tower(
    model: PaliGemmaForConditionalGeneration,
    pixels: Tensor,
    scenes: Sequence[Scene],
    epochs: int,
    learning_rate: float,
    run: TrainingRun,
) -> float:
    """Train the vision tower of `model` in place on the facts of `scenes`; return the last training loss in nats."""
    facts = [asdict(scene) for scene in scenes]
    classes = {name: sorted({values[name] for values in facts}) for name in facts[0]}
    labels = [{name: torch.tensor(classes[name].index(values[name])) for name in classes} for values in facts]
    rows = ExampleRows([{"pixels": image, **label} for image, label in zip(pixels, labels, strict=True)])
    heads = FactHeads(model.model.vision_tower, model.config.vision_config.hidden_size, classes)
    return _train_heads(heads, rows, None, epochs, learning_rate, run)


def train_tower_on_tags(
    model: PaliGemmaForConditionalGeneration, tagged: TaggedPixels, epochs: int, learning_rate: float, run: TrainingRun
) -> float:
    """Train the vision tower of `model` in place on tags; return the last training loss in nats an image."""
    rows = TagRows(tagged, run.seed)
    shares = torch.stack([rows.shares(index) for index in range(len(rows))]).mean(dim=0)
    heads = TagHead(model.model.vision_tower, model.config.vision_config.hidden_size, shares)
    return _train_heads(heads, rows, rows.collate, epochs, learning_rate, run)


def _train_heads(
    heads: FactHeads | TagHead,
    rows: ExampleRows | TagRows,
    collate: Callable[[Sequence[dict[str, Any]]], dict[str, Tensor]] | None,
    epochs: int,
    learning_rate: float,
    run: TrainingRun,
) -> float:
    trainer = LossTrainer(
        model=heads,
        args=_arguments(run, epochs, learning_rate, BATCH // run.processes.count),
        train_dataset=rows,
        data_collator=collate,
        loss=lambda tower, batch, images: tower(**batch) / images,
        processes=run.processes,
        states=run.states("tower on tags" if isinstance(heads, TagHead) else "tower"),
        rate_key="profiles.*.checkpoints.*.tower_learning_rate",
    )
    return trainer.train().training_loss


def train_decoder(
    model: PaliGemmaForConditionalGeneration,
    processor: PaliGemmaProcessor,
    pixels: Tensor,
    texts: CurriculumTexts,
    learning_rate: float,
    run: TrainingRun,
    tagged: TaggedPixels | None = None,
) -> float:
    """Train projector and decoder in place on `texts` and on tag lists; return the mean loss in nats a token."""
    model.model.vision_tower.requires_grad_(False)
    rows = example_rows(tower_features(model, pixels), texts.examples(run.seed))
    if tagged:
        rows += example_rows(tower_features(model, tagged.normalised()), tagged.examples())
    written = [" ".join(row["example"]) for row in rows]
    tokens = processor.tokenizer(written, add_special_tokens=False)["input_ids"]
    trainer = LossTrainer(
        model=model,
        args=_arguments(run, 1, learning_rate, MICRO_BATCH),
        train_dataset=ExampleRows(rows, lengths=list(map(len, tokens))),
        data_collator=lambda examples: collate_texts(processor, examples),
        loss=decoder_loss,
        processes=run.processes,
        states=run.states("decoder"),
        rate_key="profiles.*.checkpoints.*.learning_rate",
    )
    return trainer.train().training_loss


def _arguments(run: TrainingRun, epochs: int, learning_rate: float, rows: int) -> TrainingArguments:
    return training_arguments(
        run,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=BATCH // rows // run.processes.count,
        num_train_epochs=epochs,
        learning_rate=learning_rate,
        logging_steps=50,
        **OPTIONS,
    )


def example_rows(features: Tensor, examples: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Pair `examples`, image after image and epoch after epoch, with the features of their images."""
    return [{"patches": features[i % len(features)], "example": example} for i, example in enumerate(examples)]


def tower_features(model: PaliGemmaForConditionalGeneration, pixels: Tensor) -> Tensor:
    """Return the frozen tower's features, [images, patches, width]."""
    with torch.no_grad():
        return torch.cat([model.model.vision_tower(part).last_hidden_state for part in pixels.split(256)])


def collate_texts(processor: PaliGemmaProcessor, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    prompts, suffixes = zip(*(example["example"] for example in examples), strict=True)
    batch = encode_texts(processor, prompts, suffixes)
    require_prefix_lm_mask(batch)
    return batch | {"patches": torch.stack([example["patches"] for example in examples])}


def decoder_loss(model: Any, batch: dict[str, Any], tokens: Any) -> Tensor:
    projected = model.model.multi_modal_projector(batch["patches"])
    return supervised_loss(model, batch | {"features": BaseModelOutputWithPooling(pooler_output=projected)}, tokens)
