"""Accumulation changes nothing, whatever the captions' lengths; a loss that is no number is not hidden."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.tutorial import Collator
from captioning.adapters.lora import unwrap_adapter
from captioning.compute.seeds import seed_everything
from captioning.paligemma.model import supervised_loss
from captioning.supervised.finetune import CaptionRows
from captioning.training.run import TrainingRun
from captioning.training.trainer import (
    OPTIMIZERS,
    LossTrainer,
    attention_kernel,
    step_records,
    training_arguments,
)
from tests.helpers.decoders import BOTH

PROMPT = "caption en"
RATE = 0.5


def step(
    model: Any, processor: Any, rows: CaptionRows, folder: Path, batch: int, accumulation: int
) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """One step of plain SGD; the trainable weights after it, and the log."""
    arguments = training_arguments(
        TrainingRun(0, "cpu", folder),
        per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=1,
        learning_rate=RATE, lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0, logging_steps=1,
        save_strategy="no",
    )  # fmt: skip
    trainer = LossTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        data_collator=Collator(processor),
        loss=lambda adapted, examples, tokens: supervised_loss(unwrap_adapter(adapted), examples, tokens),
    )
    trainer.train()
    weights = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    return weights, trainer.state.log_history


@BOTH
@pytest.mark.parametrize(("batch", "accumulation"), [(4, 1), (2, 2), (1, 4)])
def test_a_step_is_the_librarys_gradient_of_all_its_rows(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], captions: list[list[str]],
    batch: int, accumulation: int, tmp_path: Path,
) -> None:  # fmt: skip
    model = adapted(strength=0.05)
    rows = CaptionRows(pictures, captions, PROMPT, "first", 0)
    whole = Collator(processor)([rows[i] for i in range(4)])
    assert len(set(whole["attention_mask"].sum(dim=1).tolist())) > 1
    loss = model(**whole).loss
    loss.backward()
    expected = {
        name: (value - RATE * value.grad).detach() for name, value in model.named_parameters() if value.requires_grad
    }
    model.zero_grad()
    weights, log = step(model, processor, rows, tmp_path, batch, accumulation)
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert log[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_a_loss_that_is_no_number_shows(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    arguments = training_arguments(
        TrainingRun(0, "cpu", tmp_path), per_device_train_batch_size=1, max_steps=2, logging_steps=1, save_strategy="no"
    )
    trainer = LossTrainer(
        model=model,
        args=arguments,
        train_dataset=[{"x": torch.ones(2)}] * 2,
        loss=lambda linear, batch, _: linear(batch["x"]).sum() * math.nan,
    )
    trainer.train()
    assert [math.isnan(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry] == [True, True]


def test_nothing_is_reported_outside(tmp_path: Path) -> None:
    arguments = training_arguments(TrainingRun(3, "cpu", tmp_path), learning_rate=0.5)
    assert arguments.report_to == []
    assert (arguments.seed, arguments.data_seed, arguments.learning_rate) == (3, 3, 0.5)
    assert not arguments.gradient_checkpointing
    assert arguments.device.type == "cpu"


def test_one_seed_one_draw_and_so_many_threads() -> None:
    seed_everything(5, 1)
    first = torch.randn(3)
    seed_everything(5, 1)
    assert torch.equal(torch.randn(3), first)
    assert torch.get_num_threads() == 1


def test_the_model_in_the_adapter(adapted: Callable[..., Any], quantised: Any) -> None:
    model = adapted()
    assert unwrap_adapter(model) is model.get_base_model()
    assert unwrap_adapter(quantised) is quantised


def test_records_hold_no_times() -> None:
    history = [
        {"eval_cider": 50.0, "eval_runtime": 9.0, "gain": 1.0, "step": 0},
        {"loss": 1.0, "reward": 2.0, "epoch": 0.5, "step": 1, "grad_norm": 3.0},
        {"train_runtime": 9.0, "train_loss": 1.0, "step": 2, "epoch": 1.0},
    ]
    columns = ("step", "epoch", "loss", "reward", "gain", "validation_cider")
    assert step_records(history, columns) == [
        {"validation_cider": 50.0, "gain": 1.0, "step": 0},
        {"loss": 1.0, "reward": 2.0, "epoch": 0.5, "step": 1},
    ]


def test_attention_is_plain_on_a_cpu_and_torchs_choice_elsewhere() -> None:
    def fused() -> bool:
        return torch.backends.cuda.flash_sdp_enabled()  # the flag that the CPU's fused kernel heeds, too

    assert fused()
    with attention_kernel(torch.device("cpu")):
        assert not fused()
    with attention_kernel(torch.device("cuda")):
        assert fused()
    assert fused()


@pytest.mark.parametrize("ratio", [1.0, 16.0])
def test_lora_plus_moves_b_faster(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], captions: list[list[str]], ratio: float,
    tmp_path: Path,
) -> None:  # fmt: skip
    """By hand, with plain SGD: A moves by the rate times its gradient, B by `ratio` times that."""
    model = adapted(strength=0.05)
    rows = CaptionRows(pictures, captions, PROMPT, "first", 0)
    model(**Collator(processor)([rows[i] for i in range(4)])).loss.backward()
    expected = {
        name: (value - 0.01 * (ratio if "lora_B" in name else 1) * value.grad).detach()
        for name, value in model.named_parameters() if value.requires_grad
    }  # fmt: skip
    model.zero_grad()
    arguments = training_arguments(TrainingRun(0, "cpu", tmp_path),
        per_device_train_batch_size=4, max_steps=1, learning_rate=0.01, logging_steps=1,
        lr_scheduler_type="constant", optim="sgd", max_grad_norm=0.0, save_strategy="no",
    )  # fmt: skip
    trainer = LossTrainer(
        model=model, args=arguments, train_dataset=rows, data_collator=Collator(processor), lora_plus=ratio,
        loss=lambda adapter, examples, tokens: supervised_loss(unwrap_adapter(adapter), examples, tokens),
    )  # fmt: skip
    trainer.train()
    for name, value in model.named_parameters():
        if value.requires_grad:
            torch.testing.assert_close(value.detach(), expected[name], rtol=1e-4, atol=1e-6, msg=name)
    assert trainer.state.log_history[0]["learning_rate"] == 0.01


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_learns(name: str, tmp_path: Path) -> None:
    """A target of 100 x 100 numbers, more than the 4,096 from which a state is kept in 8 bits."""
    torch.manual_seed(0)
    model, target = torch.nn.Linear(100, 100, bias=False), torch.randn(100, 100)
    arguments = training_arguments(TrainingRun(0, "cpu", tmp_path),
        per_device_train_batch_size=1, max_steps=60, learning_rate=0.1, optim=OPTIMIZERS[name],
        lr_scheduler_type="constant", save_strategy="no", logging_steps=1,
    )  # fmt: skip
    trainer = LossTrainer(
        model=model, args=arguments, train_dataset=[{"x": torch.eye(100)}] * 60,
        loss=lambda linear, batch, _: (linear(batch["x"][0]) - target.T).pow(2).mean(),
    )  # fmt: skip
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.1 * losses[0]
    states = [value for state in trainer.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    kinds = {value.dtype for value in states if value.numel() == 10_000}
    assert kinds == ({torch.float32} if name == "adamw" else {torch.uint8})


def test_a_validation_is_the_mean_over_tokens_not_over_batches(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], captions: list[list[str]], tmp_path: Path
) -> None:
    model = adapted(strength=0.05).eval()
    rows = CaptionRows(pictures, captions, PROMPT, "first", 0)
    with torch.no_grad():
        expected = model(**Collator(processor)([rows[i] for i in range(4)])).loss.item()
    arguments = training_arguments(TrainingRun(0, "cpu", tmp_path), per_device_eval_batch_size=3)
    trainer = LossTrainer(
        model=model, args=arguments, eval_dataset=rows, data_collator=Collator(processor),
        loss=lambda adapter, examples, tokens: supervised_loss(unwrap_adapter(adapter), examples, tokens),
    )  # fmt: skip
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)
