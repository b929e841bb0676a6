"""Supervised QLoRA fine-tuning: cross-entropy on the caption, two epochs, the best epoch by validation loss (V.B).

Which of an image's captions is learnt: `first` (the paper, III), `random` (another one each epoch, drawn from the
seed), or `all` (five rows an image).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peft import PeftModel
from torch.utils.data import Dataset
from transformers import PaliGemmaProcessor, TrainingArguments

from captioning.adapters.lora import unwrap_adapter
from captioning.paligemma.model import supervised_loss
from captioning.params.recipe import VariantRecipe
from captioning.supervised.pixels import DecodedCollator, decode_images
from captioning.training.run import TrainingRun
from captioning.training.trainer import OPTIMIZERS, LossTrainer, step_records, training_arguments

COLUMNS = ("step", "epoch", "loss", "learning_rate", "validation_loss")


class CaptionRows(Dataset):
    """Training rows `{image, prompt, caption}` of images with captions; `epoch` picks among them when drawn at
    random. `images` are encoded, and decoded in their place before training."""

    def __init__(self, images: Sequence[Any], captions: Sequence[Sequence[str]], prompt: str, choice: str, seed: int):
        self.images, self.captions, self.prompt, self.choice, self.seed = images, captions, prompt, choice, seed
        self.epoch = 0
        per_image = [len(own) if choice == "all" else 1 for own in captions]
        self.rows = [(image, caption) for image, count in enumerate(per_image) for caption in range(count)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, caption = self.rows[index]
        own = self.captions[image]
        if self.choice == "random":
            caption = random.Random(f"{self.seed} {self.epoch} {image}").randrange(len(own))
        return {"image": self.images[image], "prompt": self.prompt, "caption": own[caption]}


@dataclass(frozen=True)
class FinetuneResult:
    """What a fine-tuning leaves beside its adapter."""

    records: list[dict[str, Any]]  # of each logged step, columns COLUMNS
    best_epoch: int  # 1-based
    validation_loss: float  # nats a token, of that epoch


def finetune(
    model: PeftModel,
    processor: PaliGemmaProcessor,
    recipe: VariantRecipe,
    train: CaptionRows,
    validation: CaptionRows,
    run: TrainingRun,
) -> FinetuneResult:
    """Train the adapter of `model` in place, and leave it at its best epoch.

    `machine.training_rows` of a step's batch x accumulation rows are one micro-batch; the gradient is always that of
    the whole step.
    """
    for name, rows in ("train", train), ("validation", validation):
        file = run.folder / f"{name}.pixels"
        rows.images = list(decode_images(processor, rows.images, file, processes=run.processes))
    trainer = LossTrainer(
        model=model,
        args=_arguments(recipe, run),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DecodedCollator(processor),
        loss=lambda adapted, batch, tokens: supervised_loss(unwrap_adapter(adapted), batch, tokens),
        processes=run.processes,
        lora_plus=recipe.finetune.lora_plus,
        states=run.states(),
    )
    trainer.train()
    history = trainer.state.log_history
    best = min((entry for entry in history if "eval_loss" in entry), key=lambda entry: entry["eval_loss"])
    return FinetuneResult(step_records(history, COLUMNS), round(best["epoch"]), best["eval_loss"])


def micro_batch_options(recipe: VariantRecipe, processes: int) -> dict[str, int]:
    """Cut a process's share of a step into micro-batches of at most `machine.training_rows`, as the Trainer's
    options."""
    share = recipe.finetune.batch * recipe.finetune.accumulation // processes
    size = min(recipe.machine.training_rows, share)
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": share // size}


def _arguments(recipe: VariantRecipe, run: TrainingRun) -> TrainingArguments:
    settings = recipe.finetune
    return training_arguments(
        run,
        optim=OPTIMIZERS[recipe.machine.optimizer],
        **micro_batch_options(recipe, run.processes.count),
        per_device_eval_batch_size=recipe.machine.decoding_batch,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.scheduler,
        warmup_steps=settings.warmup,
        max_grad_norm=settings.gradient_clip,
        logging_steps=5,
        eval_strategy="epoch",
        metric_for_best_model="eval_loss",
    )
