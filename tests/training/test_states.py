"""A training that is killed at any step and goes on ends with the bytes and records of one that was not."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from captioning.adapters.lora import freeze_encoder
from captioning.checkpoints.miniature import load_checkpoint
from captioning.checkpoints.pretraining import Texts, draw_images, pixel_values, train_decoder, train_tower
from captioning.compute.seeds import seed_everything
from captioning.scst.features import EncodedImages
from captioning.scst.refine import refine
from captioning.supervised.finetune import CaptionRows, finetune
from captioning.training.run import TrainingRun
from captioning.training.states import (
    ResumableTrainer,
    join_tensors,
    random_state,
    set_random_state,
    split_tensors,
    trainable_weights,
)
from captioning.training.trainer import SharedTrainer
from tests.conftest import PROMPT
from tests.helpers.sampled_captions import encode_in_memory
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import change, scst_recipe

Work = Callable[[Path | None], tuple[dict[str, Tensor], Any]]  # states' folder -> weights and records


class Killed(BaseException):
    """In place of a signal."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on the n-th pass of a training is its last; 0: none is."""
    own = SharedTrainer.training_step

    def arm(number: int) -> None:
        passes = 0

        def step(self: Any, *arguments: Any, **options: Any) -> Tensor:
            nonlocal passes
            passes += 1
            if passes == number:
                raise Killed
            return own(self, *arguments, **options)

        monkeypatch.setattr(SharedTrainer, "training_step", step)

    return arm


def assert_same(one: tuple[dict[str, Tensor], Any], other: tuple[dict[str, Tensor], Any]) -> None:
    assert one[1] == other[1]
    assert one[0].keys() == other[0].keys()
    assert [name for name, value in one[0].items() if not torch.equal(value, other[0][name])] == []


def killed_everywhere(work: Work, kill_at: Callable[[int], None], folder: Path, passes: int) -> None:
    """`work` of so many passes, killed in each of them in turn and gone on with: always the same."""
    kill_at(0)
    undisturbed = work(None)
    for number in range(1, passes + 1):
        states = folder / str(number)
        kill_at(number)
        with pytest.raises(Killed):
            work(states)
        kill_at(0)
        assert_same(work(states), undisturbed)
    kill_at(passes + 1)
    assert_same(work(folder / "whole"), undisturbed)
    kill_at(1)
    assert_same(work(folder / "whole"), undisturbed)  # finished: not a pass is made again


def training_run(states: Path | None, folder: Path) -> TrainingRun:
    """A run that saves its states in `states` after every step, or saves none."""
    return TrainingRun(1, "cpu", states or folder / "no", state_interval=None if states is None else 0.0)


@pytest.fixture
def tuned(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], captions: list[list[str]],
    recipe: Any, tmp_path: Path,
) -> Work:  # fmt: skip
    """Three epochs of two steps of two passes, with all that has a state: dropout, warm-up, drawn captions, LoRA+."""

    def work(states: Path | None) -> tuple[dict[str, Tensor], Any]:
        model = adapted(dropout=0.2)
        train, held = (CaptionRows(pictures, captions, PROMPT, choice, 1) for choice in ("random", "first"))
        changed = dict(epochs=3, batch=1, accumulation=2, warmup=0.3, scheduler="linear", lora_plus=4.0)
        seed_everything(1, 1)
        changes = changed | dict(training_rows=1, decoding_batch=1)
        done = finetune(model, processor, change(recipe, **changes), train, held, training_run(states, tmp_path))
        return trainable_weights(model), (done.records, done.best_epoch, done.validation_loss)

    return work


def test_fine_tuning(tuned: Work, kill_at: Callable[[int], None], tmp_path: Path) -> None:
    killed_everywhere(tuned, kill_at, tmp_path, passes=12)


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_validation_goes_on_after_its_last_whole_batch(
    tuned: Work, kept: int, others: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the first of three validations of four batches. What other weights made of it is not taken."""
    undisturbed, own, seen, fatal = tuned(None), ResumableTrainer.cached_map, list[int](), [True]

    def counted(self: Any, name: str, work: Any, do: Any) -> list[Any]:
        def one(places: range) -> Any:
            if fatal[0] and len(seen) == kept:
                raise Killed
            seen.append(places.start)
            return do(places)

        return own(self, name, work, one)

    monkeypatch.setattr(ResumableTrainer, "cached_map", counted)
    with pytest.raises(Killed):
        tuned(tmp_path / "states")
    assert seen == list(range(kept))
    for file in (tmp_path / "states").rglob("validation-*") if others else ():
        file.rename(file.with_name("validation-2-00000000.jsonl"))
    seen.clear()
    fatal[0] = False
    assert_same(tuned(tmp_path / "states"), undisturbed)
    assert seen == [*range(0 if others else kept, 4), *range(4), *range(4)]
    assert len(list((tmp_path / "states").rglob("validation-*"))) == 1


@pytest.fixture
def refined(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], captions: list[list[str]], tmp_path: Path
) -> Work:
    """Three epochs of two steps, with a penalty for leaving the start adapter."""

    def work(states: Path | None) -> tuple[dict[str, Tensor], Any]:
        model = adapted(strength=0.05)
        freeze_encoder(model)
        images = EncodedImages(IDS, encode_in_memory(model.get_base_model(), processor, pictures))
        seed_everything(1, 1)
        recipe = scst_recipe(kl=0.1, batch=2, epochs=3, validate_every=4)
        references = second_captions(captions)
        run = training_run(states, tmp_path)
        done = refine(model, processor, recipe, images, images, make_scorers(references), run)
        return trainable_weights(model), (done.records, done.start, done.best, len(done.seconds))

    return work


def test_self_critical_training(refined: Work, kill_at: Callable[[int], None], tmp_path: Path) -> None:
    killed_everywhere(refined, kill_at, tmp_path, passes=6)


@pytest.fixture
def pretrained(checkpoint: Path, tmp_path: Path) -> Work:
    """The tower in four steps of one pass, then the decoder in two of four."""
    model, processor = load_checkpoint(checkpoint)
    scenes, drawn = draw_images(64, 24, "test 0")
    pixels = pixel_values(processor, drawn)

    def work(states: Path | None) -> tuple[dict[str, Tensor], Any]:
        learner, run = copy.deepcopy(model), training_run(states, tmp_path)
        seed_everything(1, 1)
        train_tower(learner, pixels, scenes, 2, 1e-3, run)
        train_decoder(learner, processor, pixels, Texts("base", scenes, ["alpha"], 1), 1e-3, run)
        return dict(learner.state_dict()), None

    return work


def test_pre_training(pretrained: Work, kill_at: Callable[[int], None], tmp_path: Path) -> None:
    killed_everywhere(pretrained, kill_at, tmp_path, passes=12)


def test_a_torn_state_is_passed_over(
    tuned: Work, kill_at: Callable[[int], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    undisturbed, states = tuned(None), tmp_path / "states"
    kill_at(9)
    with pytest.raises(Killed):
        tuned(states)
    torn = states / "0/step-4/moments.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    kill_at(0)
    capsys.readouterr()
    assert_same(tuned(states), undisturbed)
    said = capsys.readouterr().err
    assert f"{states}/0/step-4: incomplete, skipped" in said
    assert "going on from step 3 of an interrupted run" in said


@pytest.mark.parametrize("name", ["adamw_torch_fused", "paged_adamw_8bit"])
def test_an_optimizers_state_comes_back(name: str, tmp_path: Path) -> None:
    """The 8-bit one keeps names within names, and one table for all parameters."""
    from safetensors.torch import load, save
    from transformers import Trainer, TrainingArguments

    def trained(model: torch.nn.Module, optimizer: Any, steps: int) -> None:
        for step in range(steps):
            optimizer.zero_grad()
            (model.weight * (step + 1.0)).square().mean().backward()
            optimizer.step()

    arguments = TrainingArguments(str(tmp_path), optim=name, report_to="none", use_cpu=True, learning_rate=0.01)
    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    models = [torch.nn.Linear(128, 64) for _ in range(2)]
    optimizers = [kind(model.parameters(), **options) for model in models]
    models[1].load_state_dict(models[0].state_dict())
    trained(models[0], optimizers[0], 3)
    tensors, rest = split_tensors(optimizers[0].state_dict())
    models[1].load_state_dict(models[0].state_dict())
    optimizers[1].load_state_dict(join_tensors(load(save(tensors)), json.loads(json.dumps(rest))))
    for model, optimizer in zip(models, optimizers, strict=True):
        trained(model, optimizer, 2)
    assert torch.equal(models[0].weight, models[1].weight)


def test_random_numbers_go_on_where_they_were() -> None:
    seed_everything(3, 1)
    before = random_state()
    drawn = [random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(), np.random.randn()]
    seed_everything(4, 1)
    set_random_state(*before)
    assert [random.random(), np.random.rand(), torch.rand(1).item(), random.gauss(), np.random.randn()] == drawn
