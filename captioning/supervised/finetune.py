"""Supervised QLoRA fine-tuning: cross-entropy on the caption, two epochs, the best epoch by validation loss (V.B).

An image's caption is `first` (the paper, III), `random` (another one each epoch, by the seed) or `all` (a row each).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from peft import PeftModel
from torch.utils.data import Dataset
from transformers import PaliGemmaProcessor, TrainingArguments

from captioning.adapters.lora import unwrap_adapter
from captioning.paligemma.model import supervised_loss
from captioning.params.recipe import FinetuneSettings, VariantRecipe
from captioning.training.pixels import DecodedCollator, decode_images
from captioning.training.run import TrainingRun
from captioning.training.trainer import OPTIMIZERS, LossTrainer, micro_batches, step_records, training_arguments

COLUMNS = ("step", "epoch", "loss", "learning_rate", "validation_loss")


class CaptionRows(Dataset):
    """Training rows `{image, prompt, caption}`. The Trainer sets `epoch`; `finetune` replaces `images` by pixels."""

    def __init__(self, images: Sequence[Any], captions: Sequence[Sequence[str]], prompt: str, choice: str, seed: int):
        self.images, self.captions, self.prompt, self.choice, self.seed = images, captions, prompt, choice, seed
        self.epoch = 0
        counts = [len(texts) if choice == "all" else 1 for texts in captions]
        self.rows = [(image, caption) for image, count in enumerate(counts) for caption in range(count)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, caption = self.rows[index]
        texts = self.captions[image]
        if self.choice == "random":
            caption = random.Random(f"{self.seed} {self.epoch} {image}").randrange(len(texts))
        return {"image": self.images[image], "prompt": self.prompt, "caption": texts[caption]}


@dataclass(frozen=True)
class FinetuneResult:
    """The results of a fine-tuning, without its adapter."""

    records: list[dict[str, Any]]  # of each logged step, columns COLUMNS
    best_epoch: int  # 1-based
    validation_loss: float  # nats a token, of that epoch
    scaling: dict[str, Any] = field(default_factory=dict)  # of float16's losses (training/scaling.py)


def finetune(
    model: PeftModel,
    processor: PaliGemmaProcessor,
    recipe: VariantRecipe,
    train: CaptionRows,
    validation: CaptionRows,
    run: TrainingRun,
) -> FinetuneResult:
    """Train the adapter of `model` in place, and leave it at its best epoch."""
    for name, rows in ("train", train), ("validation", validation):
        file = run.folder / f"{name}.pixels"
        rows.images = list(decode_images(processor, rows.images, file, processes=run.processes))
    trainer = LossTrainer(
        model=model,
        args=_arguments(recipe, count_epochs(recipe.finetune, len(train)), run),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DecodedCollator(processor),
        loss=lambda adapted, batch, tokens: supervised_loss(unwrap_adapter(adapted), batch, tokens),
        processes=run.processes,
        lora_plus=recipe.finetune.lora_plus,
        states=run.states(),
        rate_key="its learning rate (profiles.*.finetune)",
    )
    trainer.train()
    history = trainer.state.log_history
    best = min((entry for entry in history if "eval_loss" in entry), key=lambda entry: entry["eval_loss"])
    return FinetuneResult(
        step_records(history, COLUMNS), round(best["epoch"]), best["eval_loss"], trainer.scaling_summary
    )


def count_epochs(settings: FinetuneSettings, rows: int) -> int:
    """Return the epochs of a training on `rows`: those of its settings, or more if these have too few steps."""
    steps = math.ceil(rows / (settings.batch * settings.accumulation))
    return max(settings.epochs, math.ceil(settings.minimum_steps / steps))


def _arguments(recipe: VariantRecipe, epochs: int, run: TrainingRun) -> TrainingArguments:
    settings, machine = recipe.finetune, recipe.machine
    return training_arguments(
        run,
        optim=OPTIMIZERS[machine.optimizer],
        **micro_batches(settings.batch * settings.accumulation, machine.chosen("training_rows"), run.processes),
        per_device_eval_batch_size=machine.chosen("decoding_batch"),
        num_train_epochs=epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup,
        max_grad_norm=settings.gradient_clip,
        logging_steps=5,
        eval_strategy="epoch",
        metric_for_best_model="eval_loss",
    )
