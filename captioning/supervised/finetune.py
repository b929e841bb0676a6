"""Supervised QLoRA fine-tuning: cross-entropy on the caption, two epochs, the best epoch by validation loss (V.B).

Which of an image's captions is learnt: `first` (the paper, III), `random` (another one each epoch, drawn from the
seed), or `all` (five rows an image).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import PeftModel
from torch.utils.data import Dataset
from transformers import PaliGemmaProcessor, TrainingArguments

from captioning.adapters.lora import unwrap_adapter
from captioning.compute.processes import SINGLE_PROCESS, Processes
from captioning.paligemma.model import supervised_loss
from captioning.runtime.resume import states
from captioning.supervised.pixels import DecodedCollator, decode_all
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
class Finetuned:
    """What a fine-tuning leaves beside its adapter."""

    records: list[dict[str, Any]]  # of each logged step, columns COLUMNS
    best_epoch: int  # 1-based
    validation_loss: float  # nats a token, of that epoch


def finetune(
    model: PeftModel,
    processor: PaliGemmaProcessor,
    recipe: dict[str, Any],
    train: CaptionRows,
    validation: CaptionRows,
    seed: int,
    device: str,
    scratch: Path,
    processes: Processes = SINGLE_PROCESS,
    optimizer: str = "adamw",
    rows: int | None = None,
    eval_batch: int = 64,
    every: float | None = None,
    **reporting: Any,
) -> Finetuned:
    """Train the adapter of `model` in place, and leave it at its best epoch. `recipe` is the recipe's `finetune`
    section, `optimizer` a key of `OPTIMIZERS`.

    `rows` (None: the recipe's batch) of a step, which has batch x accumulation, run in one pass; the gradient is that
    of the whole step in any case. `scratch` holds decoded pictures and, `every` so many seconds, states from which a
    run that was killed goes on. `reporting`: of `tracking.tracked`.
    """
    own = scratch / str(processes.rank)
    for name, of in ("train", train), ("validation", validation):
        of.images = list(decode_all(processor, of.images, scratch / f"{name}.pixels", processes=processes))
    trainer = LossTrainer(
        model=model,
        args=_arguments(
            recipe,
            seed,
            device,
            own,
            optim=OPTIMIZERS[optimizer],
            **passes(recipe, rows or recipe["batch"], processes.count),
            per_device_eval_batch_size=eval_batch,
            **reporting,
        ),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=DecodedCollator(processor),
        loss=lambda adapted, batch, tokens: supervised_loss(unwrap_adapter(adapted), batch, tokens),
        processes=processes,
        lora_plus=recipe["lora_plus"],
        states=states(own, every),
    )
    trainer.train()
    history = trainer.state.log_history
    best = min((entry for entry in history if "eval_loss" in entry), key=lambda entry: entry["eval_loss"])
    return Finetuned(step_records(history, COLUMNS), round(best["epoch"]), best["eval_loss"])


def passes(recipe: dict[str, Any], rows: int, processes: int) -> dict[str, int]:
    """A process's share of a step's rows, cut into passes of at most `rows`, as the Trainer's options."""
    own = recipe["batch"] * recipe["accumulation"] // processes
    size = min(rows, own)
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": own // size}


def _arguments(recipe: dict[str, Any], seed: int, device: str, scratch: Path, **options: Any) -> TrainingArguments:
    return training_arguments(
        scratch,
        seed,
        device,
        num_train_epochs=recipe["epochs"],
        learning_rate=recipe["learning_rate"],
        weight_decay=recipe["weight_decay"],
        lr_scheduler_type=recipe["scheduler"],
        warmup_steps=recipe["warmup"],
        max_grad_norm=recipe["gradient_clip"],
        logging_steps=5,
        eval_strategy="epoch",
        metric_for_best_model="eval_loss",
        **options,
    )
