"""A killed training continues to the bytes of an undisturbed one; a number that is not finite ends it."""

import copy
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from captioning.adapters.lora import freeze_encoder
from captioning.base.errors import UserError
from captioning.checkpoints.miniature import load_checkpoint
from captioning.checkpoints.pretraining import CurriculumTexts, draw_images, pixel_values, train_decoder, train_tower
from captioning.compute import processes
from captioning.compute.seeds import seed_everything
from captioning.scst.features import EncodedImages
from captioning.scst.refine import refine
from captioning.supervised.finetune import CaptionRows, finetune
from captioning.training.run import TrainingRun
from captioning.training.states import (
    TENSOR_FILE,
    ResumableTrainer,
    StateSaver,
    load_optimizer,
    random_state,
    read_tree,
    set_random_state,
    trainable_weights,
    write_tree,
)
from captioning.training.trainer import SharedTrainer
from tests.conftest import PROMPT
from tests.helpers.sampled_captions import encode_in_memory
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import change, scst_recipe

Outcome = tuple[dict[str, Tensor], Any]  # weights and records
Make, KillAt = Callable[..., Any], Callable[[int], None]
Training = Callable[[Path | None], Outcome]  # of a folder for states


class Killed(BaseException):
    """Stands for a signal."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> KillAt:
    """Return a function after which the n-th micro-batch of a training kills it; 0: none does."""
    original = SharedTrainer.training_step

    def arm(number: int) -> None:
        count = 0

        def step(self: Any, *arguments: Any, **options: Any) -> Tensor:
            nonlocal count
            count += 1
            if count == number:
                raise Killed
            return original(self, *arguments, **options)

        monkeypatch.setattr(SharedTrainer, "training_step", step)

    return arm


def assert_same(outcome: Outcome, expected: Outcome) -> None:
    assert outcome[1] == expected[1]
    assert outcome[0].keys() == expected[0].keys()
    assert [name for name, value in outcome[0].items() if not torch.equal(value, expected[0][name])] == []


def training_run(states: Path | None, folder: Path) -> TrainingRun:
    """Return a run that saves its states in `states` after every step, or saves none."""
    return TrainingRun(1, "cpu", states or folder / "no", state_interval=None if states is None else 0.0)


@pytest.fixture
def tuned(
    adapted: Make, processor: Any, pictures: list[bytes], captions: list[list[str]], recipe: Any, tmp_path: Path
) -> Training:
    """Three epochs of two steps of two micro-batches, with all that has a state: dropout, warm-up, LoRA+ and so on."""

    def train(states: Path | None) -> Outcome:
        model = adapted(dropout=0.2)
        rows, validation = (CaptionRows(pictures, captions, PROMPT, choice, 1) for choice in ("random", "first"))
        sizes = dict(epochs=3, batch=1, accumulation=2, training_rows=1, decoding_batch=1)
        changed = change(recipe, warmup=0.3, scheduler="linear", lora_plus=4.0, **sizes)
        seed_everything(1, 1)
        result = finetune(model, processor, changed, rows, validation, training_run(states, tmp_path))
        return trainable_weights(model), (result.records, result.best_epoch, result.validation_loss)

    return train


@pytest.fixture
def refined(
    adapted: Make, processor: Any, pictures: list[bytes], captions: list[list[str]], tmp_path: Path
) -> Training:
    """Three epochs of two steps, with a penalty for leaving the start adapter."""

    def train(states: Path | None) -> Outcome:
        model = adapted(strength=0.05)
        freeze_encoder(model)
        images = EncodedImages(IDS, encode_in_memory(model.get_base_model(), processor, pictures))
        recipe = scst_recipe(kl=0.1, batch=2, epochs=3, validate_every=4)
        scorers = make_scorers(second_captions(captions))
        seed_everything(1, 1)
        result = refine(model, processor, recipe, images, images, scorers, training_run(states, tmp_path))
        return trainable_weights(model), (result.records, result.start, result.best, len(result.seconds))

    return train


@pytest.fixture
def pretrained(checkpoint: Path, tmp_path: Path) -> Training:
    """The tower in four steps of one micro-batch, then the decoder in two of four."""
    model, processor = load_checkpoint(checkpoint)
    scenes, images = draw_images(64, 24, "test 0")
    pixels = pixel_values(processor, images)

    def train(states: Path | None) -> Outcome:
        learner, run = copy.deepcopy(model), training_run(states, tmp_path)
        seed_everything(1, 1)
        train_tower(learner, pixels, scenes, 2, 1e-3, run)
        train_decoder(learner, processor, pixels, CurriculumTexts("base", scenes, ["alpha"], 1), 1e-3, run)
        return dict(learner.state_dict()), None

    return train


@pytest.mark.parametrize(
    ("name", "kills", "last"),
    [
        ("tuned", (1, 2, 3, 4, 3, 4, 3, 2), 2),
        ("refined", (1, 2, 2, 2, 2, 2), 1),
        ("pretrained", (1, 2, 2, 2, 2, 2, 3, 4, 5, 4), 4),
    ],
)
def test_a_killed_training_continues_to_the_same_bytes(
    name: str, kills: tuple[int, ...], last: int, kill_at: KillAt, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A training is killed again and again, in each of its steps: `kills` are micro-batches since its last start.

    It must complete a step between two kills, because after the last of them only `last` micro-batches remain.
    """
    train: Training = request.getfixturevalue(name)
    kill_at(0)
    undisturbed, states = train(None), tmp_path / "states"
    for number in kills:
        kill_at(number)
        with pytest.raises(Killed):
            train(states)
    for number in (last + 1, 1):  # a finished training repeats no micro-batch
        kill_at(number)
        assert_same(train(states), undisturbed)


def inject(fault: str, micro_batch: int, step: int, patch: pytest.MonkeyPatch) -> None:
    """Make the loss or the gradients of one micro-batch, or the weights after one step, not finite."""
    original, count = SharedTrainer.training_step, 0

    def training_step(self: Any, model: Any, *arguments: Any, **options: Any) -> Tensor:
        nonlocal count
        count += 1
        compute_loss = self.compute_loss

        def compute(*arguments: Any, **options: Any) -> Tensor:
            loss = compute_loss(*arguments, **options)
            loss.register_hook(lambda gradient: gradient * (math.inf if fault == "gradients" else 1))
            return loss * (math.nan if fault == "loss" else 1)

        with pytest.MonkeyPatch.context() as local:
            if count == micro_batch:
                local.setattr(self, "compute_loss", compute)
            return original(self, model, *arguments, **options)

    def spoil_weights(self: Any, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        if state.global_step + 1 == step and fault == "weight":
            next(value for value in model.parameters() if value.requires_grad).data.view(-1)[0] = -math.inf

    patch.setattr(SharedTrainer, "training_step", training_step)
    patch.setattr(StateSaver, "on_optimizer_step", spoil_weights, raising=False)


@pytest.mark.parametrize(
    ("name", "fault", "micro_batch", "step", "key"),
    [
        ("tuned", "loss", 9, 5, "finetune"),
        ("tuned", "gradients", 9, 5, "finetune"),
        ("tuned", "weight", 0, 5, "finetune"),
        ("refined", "loss", 5, 5, "scst.learning_rate"),
        ("refined", "gradients", 5, 5, "scst.learning_rate"),
        ("pretrained", "loss", 3, 3, "tower_learning_rate"),
        ("pretrained", "gradients", 11, 2, "checkpoints.*.learning_rate"),
    ],
)
def test_a_number_that_is_not_finite_ends_a_training_at_its_step(
    name: str, fault: str, micro_batch: int, step: int, key: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """One line names the step; the state before it remains."""
    train: Training = request.getfixturevalue(name)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError) as caught:
        inject(fault, micro_batch, step, patch)
        train(tmp_path / "states")
    line = str(caught.value)
    assert re.search(rf"{fault} is -?(nan|inf) at step {step}, ", line) and key in line and "\n" not in line
    part = "" if name != "pretrained" else "tower" if "tower" in key else "decoder"
    states = training_run(tmp_path / "states", tmp_path).states(part)
    assert states is not None and states.intact_steps()[-1] == step - 1
    weights = read_tree(states.state_folder(step - 1))["trained"].values()
    assert all(torch.isfinite(value).all() for value in weights)


@pytest.mark.parametrize("has_other_weights", [False, True])
@pytest.mark.parametrize("finished", [0, 1, 3])
def test_a_validation_continues_after_its_last_finished_batch(
    tuned: Training, finished: int, has_other_weights: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of three validations of four batches is killed. Results of other weights are not reused."""
    undisturbed, original, seen, is_fatal = tuned(None), ResumableTrainer.cached_map, list[int](), True

    def cached_map(self: Any, name: str, items: Any, function: Any) -> list[Any]:
        def validate(numbers: range) -> Any:
            if is_fatal and len(seen) == finished:
                raise Killed
            seen.append(numbers.start)
            return function(numbers)

        return original(self, name, items, validate)

    monkeypatch.setattr(ResumableTrainer, "cached_map", cached_map)
    states = tmp_path / "states"
    with pytest.raises(Killed):
        tuned(states)
    assert seen == list(range(finished))
    for file in states.rglob("validation-*") if has_other_weights else ():
        file.rename(file.with_name("validation-2-00000000.jsonl"))
    seen.clear()
    is_fatal = False
    assert_same(tuned(states), undisturbed)
    assert seen == [*range(0 if has_other_weights else finished, 4), *range(4), *range(4)]
    assert len(list(states.rglob("validation-*"))) == 1


def test_an_incomplete_state_is_skipped(
    tuned: Training, kill_at: KillAt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed, states = tuned(None), tmp_path / "states"
    kill_at(9)
    with pytest.raises(Killed):
        tuned(states)
    file = states / "0/cpu/step-4" / TENSOR_FILE
    file.write_bytes(file.read_bytes()[:-1])
    kill_at(0)
    capsys.readouterr()
    assert_same(tuned(states), undisturbed)
    assert "going on from step 3 " in capsys.readouterr().err


def test_another_kind_of_device_has_other_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = set()
    for name in ("GPU A", "GPU B"):
        monkeypatch.setattr(processes, "device_name", lambda _, name=name: name)
        states = training_run(tmp_path, tmp_path).states()
        assert states is not None
        folders.add(states.folder)
    assert len(folders) == 2


@pytest.mark.parametrize("name", ["adamw_torch_fused", "paged_adamw_8bit"])
def test_an_optimizer_continues_from_its_saved_state(name: str, tmp_path: Path) -> None:
    """The 8-bit optimizer nests its state, and shares one table among all parameters."""

    def train(model: torch.nn.Module, optimizer: Any, steps: int) -> None:
        for step in range(steps):
            optimizer.zero_grad()
            (model.weight * (step + 1.0)).square().mean().backward()
            optimizer.step()

    arguments = TrainingArguments(str(tmp_path), optim=name, report_to="none", use_cpu=True, learning_rate=0.01)
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    models = [torch.nn.Linear(128, 64) for _ in range(2)]
    optimizers = [kind(model.parameters(), **options) for model in models]
    train(models[0], optimizers[0], 3)
    write_tree(tmp_path, {"optimizer": optimizers[0].state_dict()})
    models[1].load_state_dict(models[0].state_dict())
    load_optimizer(optimizers[1], read_tree(tmp_path)["optimizer"])
    for model, optimizer in zip(models, optimizers, strict=True):
        train(model, optimizer, 2)
    assert torch.equal(models[0].weight, models[1].weight)


def test_random_numbers_continue(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(), np.random.randn()]

    seed_everything(3, 1)
    write_tree(tmp_path, random_state())
    expected = draw()
    seed_everything(4, 1)
    set_random_state(read_tree(tmp_path))
    assert draw() == expected
