"""A step's gradient is the library's, however the step is cut; validation, optimizers and logs of the trainer."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.tutorial import Collator
from captioning.adapters.lora import unwrap_adapter
from captioning.base.errors import UserError
from captioning.compute.seeds import seed_everything
from captioning.paligemma.model import supervised_loss
from captioning.supervised.finetune import CaptionRows
from captioning.training.run import TrainingRun
from captioning.training.trainer import (
    OPTIMIZERS,
    Loss,
    LossTrainer,
    attention_kernel,
    step_records,
    training_arguments,
)
from tests.conftest import PROMPT
from tests.helpers.decoders import BOTH

RATE = 0.5
Make = Callable[..., Any]  # a fixture that makes models or trainers


@pytest.fixture
def make_trainer(tmp_path: Path) -> Make:
    """Return a maker of trainers with a constant rate and a log of each step."""

    def make(model: Any, rows: Any, loss: Loss, collator: Any = None, lora_plus: float = 1.0, **options: Any) -> Any:
        shared: dict[str, Any] = dict(learning_rate=RATE, lr_scheduler_type="constant", logging_steps=1)
        arguments = training_arguments(TrainingRun(0, "cpu", tmp_path), **(shared | options))
        data = {"train_dataset": rows, "eval_dataset": rows, "data_collator": collator}
        return LossTrainer(model=model, args=arguments, loss=loss, lora_plus=lora_plus, **data)

    return make


@pytest.fixture
def rows(pictures: list[bytes], captions: list[list[str]]) -> CaptionRows:
    return CaptionRows(pictures, captions, PROMPT, "first", 0)


def caption_loss(model: Any, batch: dict[str, Any], tokens: Any) -> torch.Tensor:
    return supervised_loss(unwrap_adapter(model), batch, tokens)


@BOTH
@pytest.mark.parametrize(("batch", "accumulation", "ratio"), [(4, 1, 1.0), (2, 2, 1.0), (1, 4, 1.0), (4, 1, 16.0)])
def test_a_step_takes_the_librarys_gradient_of_all_its_rows(
    adapted: Make, processor: Any, rows: CaptionRows, make_trainer: Make, batch: int, accumulation: int, ratio: float
) -> None:
    """One step of plain SGD: A moves by the rate times its gradient, B by `ratio` times that (LoRA+)."""
    model, collator = adapted(strength=0.05), Collator(processor)
    examples = collator([rows[number] for number in range(4)])
    assert len(set(examples["attention_mask"].sum(dim=1).tolist())) > 1
    loss = model(**examples).loss
    loss.backward()
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    expected = {
        name: value.detach() - RATE * (ratio if "lora_B" in name else 1) * value.grad for name, value in trained.items()
    }
    model.zero_grad()
    sizes = dict(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation, max_steps=1)
    trainer = make_trainer(model, rows, caption_loss, collator, ratio, optim="sgd", max_grad_norm=0.0, **sizes)
    trainer.train()
    for name, value in expected.items():
        torch.testing.assert_close(trained[name].detach(), value, rtol=1e-4, atol=1e-6, msg=name)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert trainer.state.log_history[0]["learning_rate"] == RATE


def test_a_validation_is_the_mean_over_tokens_not_over_batches(
    adapted: Make, processor: Any, rows: CaptionRows, make_trainer: Make
) -> None:
    model, collator = adapted(strength=0.05).eval(), Collator(processor)
    with torch.no_grad():
        expected = model(**collator([rows[number] for number in range(4)])).loss.item()
    trainer = make_trainer(model, rows, caption_loss, collator, per_device_eval_batch_size=3)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_a_loss_that_is_not_a_number_moves_no_weight_and_is_not_logged(make_trainer: Make) -> None:
    """Neither in training nor in a validation."""
    rows, options = [{"x": torch.ones(2)}] * 2, dict(per_device_train_batch_size=1, max_steps=2)
    model = torch.nn.Linear(2, 1)
    before = model.weight.detach().clone()
    trainer = make_trainer(model, rows, lambda model, batch, _: model(batch["x"]).sum() * math.nan, **options)
    with pytest.raises(UserError, match=r"the loss is nan at step 1, .* lower its learning rate"):
        trainer.train()
    with pytest.raises(UserError, match="the validation loss is nan at step 0"):
        trainer.evaluate()
    assert torch.equal(model.weight, before) and trainer.state.log_history == []


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_learns(name: str, make_trainer: Make) -> None:
    """The target has 100 x 100 numbers: from 4,096 on, the 8-bit optimizer really stores its state in 8 bits."""
    torch.manual_seed(0)
    target, rows = torch.randn(100, 100), [{"x": torch.eye(100)}] * 60
    trainer = make_trainer(
        torch.nn.Linear(100, 100, bias=False),
        rows,
        lambda model, batch, _: (model(batch["x"][0]) - target.T).pow(2).mean(),
        per_device_train_batch_size=1,
        max_steps=60,
        learning_rate=0.1,
        optim=OPTIMIZERS[name],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.1 * losses[0]
    values = [value for state in trainer.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    dtypes = {value.dtype for value in values if value.numel() == 10_000}
    assert dtypes == ({torch.float32} if name == "adamw" else {torch.uint8})


def test_nothing_is_reported_to_services(tmp_path: Path) -> None:
    arguments = training_arguments(TrainingRun(3, "cpu", tmp_path))
    assert (arguments.report_to, arguments.seed, arguments.data_seed, arguments.device.type) == ([], 3, 3, "cpu")


def test_seed_and_threads_are_set() -> None:
    draws = []
    for _ in range(2):
        seed_everything(5, 1)
        draws.append(torch.randn(3).tolist())
    assert draws[0] == draws[1]
    assert torch.get_num_threads() == 1


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


@pytest.mark.parametrize(("device", "is_fused"), [("cpu", False), ("cuda", True)])
def test_attention_is_plain_on_a_cpu_only(device: str, is_fused: bool) -> None:
    with attention_kernel(torch.device(device)):
        assert torch.backends.cuda.flash_sdp_enabled() is is_fused  # a CPU's fused kernel obeys this flag, too
    assert torch.backends.cuda.flash_sdp_enabled()
