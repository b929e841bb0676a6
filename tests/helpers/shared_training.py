"""Trainings that compute/test_processes.py runs in one process and in two.

FOLDER holds `checkpoint` (of tests/conftest.py); results go to FOLDER/PROCESSES-RANK, or with RUN_NAME
in the environment to FOLDER/RUN_NAME-RANK. They use float32 and no dropout.
With STATES in the environment, a training saves its states; with KILL_AT, its first process is killed in that
micro-batch; with SPOIL_AT, the loss of its last process is not a number there.
"""

import itertools
import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model
from safetensors.torch import save_model

import stages  # noqa: F401  # sets how long threads spin
from captioning.adapters.lora import freeze_encoder, lora_config, save_adapter
from captioning.checkpoints.miniature import load_checkpoint
from captioning.checkpoints.pretraining import CurriculumTexts, draw_images, pixel_values, train_decoder, train_tower
from captioning.compute.processes import Processes, start_processes
from captioning.compute.seeds import seed_everything
from captioning.paligemma.model import load_processor, load_quantised
from captioning.scst.features import EncodedImages, encode_images
from captioning.scst.refine import refine
from captioning.scst.trainer import SCSTTrainer
from captioning.supervised.finetune import CaptionRows, finetune
from captioning.training.run import TrainingRun
from captioning.training.trainer import LossTrainer, SharedTrainer
from tests.conftest import CAPTIONS, COLOURS, PROMPT, SIZE, png
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import scst_recipe, variant_recipe

IMAGES = [png(colour) for colour in COLOURS]


def run_name(processes: Processes) -> str:
    return os.environ.get("RUN_NAME", str(processes.count))


def training_run(folder: Path, processes: Processes) -> TrainingRun:
    seconds = 0.0 if "STATES" in os.environ else None  # from one state to the next
    return TrainingRun(1, "cpu", folder / f"scratch-{run_name(processes)}", processes, seconds)


def adapter(folder: Path) -> Any:
    torch.manual_seed(0)
    model = get_peft_model(
        load_quantised(folder / "checkpoint", "float32", "cpu"), lora_config(4, 8.0, 0.0, False, "table2")
    )
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def supervised(folder: Path, processes: Processes) -> tuple[Any, list[dict[str, Any]]]:
    """Train on seven rows in micro-batches of one, four a step. The last step has three, so one process has less."""
    model, processor = adapter(folder), load_processor(folder / "checkpoint")
    images, captions = [*IMAGES, *IMAGES[:3]], [*CAPTIONS, *(texts[::-1] for texts in CAPTIONS[:3])]
    train, validation = (CaptionRows(images[:rows], captions[:rows], PROMPT, "first", 1) for rows in (7, 5))
    settings = {"batch": 1, "accumulation": 4, "epochs": 3, "lora_plus": 2.0, "learning_rate": 1e-4}
    recipe = variant_recipe(**settings, training_rows=1, decoding_batch=2)
    result = finetune(model, processor, recipe, train, validation, training_run(folder, processes))
    return model, result.records


def self_critical(folder: Path, processes: Processes) -> tuple[Any, list[dict[str, Any]]]:
    """Refine on three images, two a step. The second step has one, so one process has none."""
    model, processor = adapter(folder), load_processor(folder / "checkpoint")
    freeze_encoder(model)
    run = training_run(folder, processes)
    features = encode_images(model.get_base_model(), processor, IMAGES, 2, run.folder / "features", processes=processes)
    recipe = scst_recipe(batch=2, scst_images=1, epochs=2, validate_every=2, kl=0.1, decoding_batch=3)
    train, validation = EncodedImages(IDS[:3], features[:3]), EncodedImages(IDS, features)
    references = second_captions([list(texts) for texts in CAPTIONS])
    result = refine(model, processor, recipe, train, validation, make_scorers(references), run)
    return model, result.records


def pretraining(folder: Path, processes: Processes) -> tuple[Any, list[dict[str, Any]]]:
    """Train the tower, then projector and decoder, on 40 images. A process may have none of the second step's eight."""
    model, processor = load_checkpoint(folder / "checkpoint")
    processor.tokenizer.padding_side = "right"
    scenes, images = draw_images(40, SIZE, "shared")
    pixels, run = pixel_values(processor, images), training_run(folder, processes)
    tower = train_tower(model, pixels, scenes, 1, 1e-4, run)
    decoder = train_decoder(model, processor, pixels, CurriculumTexts("base", scenes, ["alpha"], 1), 1e-4, run)
    return model, [{"tower": tower, "decoder": decoder}]


TRAININGS = {"supervised": supervised, "scst": self_critical, "pretraining": pretraining}


def spoil_at(number: int) -> None:
    """Make the loss of the n-th micro-batch of this process not a number."""
    numbers = itertools.count(1)
    for trainer in (LossTrainer, SCSTTrainer):

        def compute(self: Any, *arguments: Any, original: Any = trainer.compute_loss, **options: Any) -> torch.Tensor:
            return original(self, *arguments, **options) * (math.nan if next(numbers) == number else 1)

        trainer.compute_loss = compute  # type: ignore[method-assign, assignment]


def kill_at(number: int) -> None:
    """Kill this process in the n-th micro-batch of its training."""
    training_step, numbers = SharedTrainer.training_step, itertools.count(1)

    def step(self: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        if next(numbers) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return training_step(self, *arguments, **options)

    SharedTrainer.training_step = step  # type: ignore[method-assign]


def main(training: str, folder: Path, count: int) -> None:
    processes = start_processes(count, "cpu")
    if processes is None:
        return
    seed_everything(1, 1)
    if processes.is_main and "KILL_AT" in os.environ:  # of forks that ended at the same time, torch reports the first
        kill_at(int(os.environ["KILL_AT"]))
    if processes.rank == processes.count - 1 and "SPOIL_AT" in os.environ:
        spoil_at(int(os.environ["SPOIL_AT"]))
    model, records = TRAININGS[training](folder, processes)
    name = run_name(processes)
    if training == "pretraining":
        (folder / f"{name}-{processes.rank}").mkdir()
        save_model(model, str(folder / f"{name}-{processes.rank}/adapter_model.safetensors"))
    else:
        save_adapter(model, folder / f"{name}-{processes.rank}", "")
    if processes.is_main:
        (folder / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")
