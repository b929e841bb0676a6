"""The transformers `Trainer` under every training here: only the loss is ours.

Accumulation, clipping, schedule, checkpoints and several processes come with it. The sum of a loss over all tokens of
an optimizer step is divided by their number once (`num_items_in_batch`), so accumulation changes nothing.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Trainer, TrainingArguments, set_seed

Loss = Callable[[Any, dict[str, Any], Any], torch.Tensor]  # model, batch, tokens of the whole step or None


class LossTrainer(Trainer):
    """A `Trainer` whose loss is a function of model, batch and the step's number of tokens."""

    def __init__(self, *arguments: Any, loss: Loss, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.loss = loss
        self.model_accepts_loss_kwargs = True  # else the Trainer divides by the accumulation a second time

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        with attention_kernel(self.args.device):
            loss = self.loss(model, inputs, num_items_in_batch)
        return (loss, {}) if return_outputs else loss


@contextmanager
def attention_kernel(device: torch.device) -> Iterator[None]:
    """On a CPU, attention in plain products: the fused kernel's backward is a third of a step there. Else torch's own
    choice. The kernel of the forward is that of the backward."""
    if device.type != "cpu":
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def training_arguments(folder: Path, seed: int, device: str, **options: Any) -> TrainingArguments:
    """`TrainingArguments` with what every training here shares; `options` are the Trainer's own names."""
    shared: dict[str, Any] = dict(
        output_dir=str(folder),
        seed=seed,
        data_seed=seed,
        use_cpu=device == "cpu",
        report_to="none",
        remove_unused_columns=False,
        optim="adamw_torch",
        logging_nan_inf_filter=False,
        prediction_loss_only=True,
        label_names=["labels"],
        dataloader_pin_memory=device != "cpu",
        save_only_model=True,
    )
    return TrainingArguments(**(shared | options))


def seed_everything(seed: int, threads: int) -> None:
    """Seed Python, NumPy and torch, and pin the number of threads: the count of visible cores changes nothing."""
    torch.set_num_threads(threads)
    set_seed(seed)


def base_model(model: Any) -> Any:
    """The PaliGemma inside an adapter, with its layers adapted; a bare PaliGemma as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def step_records(history: Sequence[dict[str, Any]], columns: Collection[str]) -> list[dict[str, Any]]:
    """The Trainer's log as step records: `columns` alone, so no times; its `eval_x` is `validation_x` here."""
    renamed = ({key.replace("eval_", "validation_"): value for key, value in entry.items()} for entry in history)
    records = [{key: value for key, value in entry.items() if key in columns} for entry in renamed]
    return [record for record in records if record.keys() - {"step", "epoch"}]
