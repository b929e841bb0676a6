"""The transformers `Trainer` under every training here: only the loss is ours, and how rows reach it.

Accumulation, clipping and schedule come with it; training/states.py keeps its state.

1. A loss is a sum divided once by what is counted over the whole optimizer step (labelled tokens, captions), so neither
   accumulation nor several processes change it (training/batches.py, compute/processes.py).
2. A validation loss is per token, not the mean of its batches' means.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from peft.optimizers import create_loraplus_optimizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from captioning.compute.processes import SINGLE_PROCESS, Processes
from captioning.paligemma.model import IGNORED
from captioning.runtime.progress import progress_bar
from captioning.training.batches import EpochLoader, StepBatches
from captioning.training.run import TrainingRun
from captioning.training.states import ResumableTrainer

Loss = Callable[[Any, dict[str, Any], Any], torch.Tensor]  # model, batch, what the sum is divided by
OPTIMIZERS = {"adamw": "adamw_torch_fused", "paged-adamw-8bit": "paged_adamw_8bit"}  # the Trainer's names


class SharedTrainer(ResumableTrainer):
    """A `Trainer` whose steps are shared out among `processes`; it runs in each of them and knows of one.

    `lora_plus`: learning rate of the adapters' B over that of A (Hayou et al. 2024, arXiv:2402.12354).
    """

    def __init__(
        self, *arguments: Any, processes: Processes = SINGLE_PROCESS, lora_plus: float = 1.0, **options: Any
    ) -> None:
        super().__init__(*arguments, processes=processes, **options)
        self.remove_callback(PrinterCallback)
        self.add_callback(StepBar())
        self.lora_plus = lora_plus
        self.unsummed = torch.zeros((), device=self.args.device)  # loss of this process's micro-batches of a step
        torch.manual_seed(self.args.seed + processes.rank)  # dropout of another share
        self.model_accepts_loss_kwargs = True  # else the Trainer divides by the accumulation a second time

    def count_loss_terms(self, batch: dict[str, Any]) -> int:
        """What the loss of `batch` is a sum over: labelled tokens, or rows where there are no labels."""
        if "labels" in batch:
            return int((batch["labels"][:, 1:] != IGNORED).sum())
        return len(next(iter(batch.values())))

    def get_train_dataloader(self) -> EpochLoader:
        rows: Any = self.train_dataset
        args = self.args
        sizes = args.per_device_train_batch_size, args.gradient_accumulation_steps
        batches = StepBatches(rows, *sizes, args.seed, self.processes)
        collate = self.data_collator
        return EpochLoader(
            rows,
            batch_sampler=batches,
            collate_fn=lambda some: collate(some) if some else {},
            pin_memory=args.dataloader_pin_memory,
        )

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The micro-batches of a step, and how many items they have over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        own = sum(self.count_loss_terms(batch) for batch in batches if batch)
        return batches, self.processes.sum(torch.tensor(own, device=device))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of one micro-batch, which may be empty. A step's last sums gradients and losses over the
        processes, so that none waits for another before."""
        loss = torch.zeros((), device=self.args.device)
        if inputs:
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.processes.count == 1:
            return loss
        self.unsummed = self.unsummed + loss
        if not self.accelerator.sync_gradients:
            return torch.zeros_like(loss)
        self.processes.sum_gradients(model.parameters())
        summed, self.unsummed = self.processes.sum(self.unsummed.clone()), torch.zeros_like(loss)
        return summed

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None and self.lora_plus != 1:  # type: ignore[has-type]
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = create_loraplus_optimizer(
                self.model, kind, loraplus_lr_ratio=self.lora_plus, loraplus_weight_decay=self.args.weight_decay,
                **options,
            )  # fmt: skip
        return super().create_optimizer(model)

    def eval_batches(self) -> Sequence[range]:
        """Places of the validation rows that fall to this process, a batch each."""
        rows: Any = self.eval_dataset
        size, number = self.args.per_device_eval_batch_size, len(rows)
        return self.processes.share([range(begin, min(begin + size, number)) for begin in range(0, number, size)])

    def report_validation(self, metrics: dict[str, float]) -> dict[str, float]:
        """Log `metrics` of a validation, and tell the Trainer that this step has had one."""
        self.log(metrics)
        control: Any = self.control  # type: ignore[has-type]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics


class StepBar(TrainerCallback):
    """A bar of the optimizer's steps."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = progress_bar(state.max_steps, "steps")
        self.bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


class LossTrainer(SharedTrainer):
    """A `SharedTrainer` whose loss is a function of model, batch and the step's number of items."""

    def __init__(self, *arguments: Any, loss: Loss, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.loss = loss

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        with attention_kernel(self.args.device):
            loss = self.loss(model, inputs, num_items_in_batch)
        return (loss, {}) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The validation rows' loss an item."""
        rows: Any = self.eval_dataset
        model = self.model.eval()

        def of_batch(places: range) -> tuple[float, int]:
            batch = self._prepare_inputs(self.data_collator([rows[place] for place in places]))
            with torch.no_grad(), attention_kernel(self.args.device):
                return float(self.loss(model, batch, 1)), self.count_loss_terms(batch)

        sums = [math.fsum(of) for of in zip(*self.cached_map("validation", self.eval_batches(), of_batch), strict=True)]
        total = torch.tensor(sums or [0.0, 0.0], dtype=torch.float64, device=self.args.device)
        loss, items = self.processes.sum(total).tolist()
        return self.report_validation({"eval_loss": loss / items})


@contextmanager
def attention_kernel(device: torch.device) -> Iterator[None]:
    """On a CPU, attention in plain products: the fused kernel's backward is a third of a step there. Else torch's own
    choice. The kernel of the forward is that of the backward."""
    if device.type != "cpu":
        yield
        return
    with sdpa_kernel(SDPBackend.MATH):
        yield


def training_arguments(run: TrainingRun, **options: Any) -> TrainingArguments:
    """Return `TrainingArguments` with what all trainings share; `options` have the Trainer's own names."""
    shared: dict[str, Any] = dict(
        output_dir=str(run.process_folder),
        seed=run.seed,
        data_seed=run.seed,
        use_cpu=run.device == "cpu",
        report_to="none",
        remove_unused_columns=False,
        optim=OPTIMIZERS["adamw"],
        logging_nan_inf_filter=False,
        prediction_loss_only=True,
        label_names=["labels"],
        dataloader_pin_memory=run.device != "cpu",
        save_strategy="no",
        disable_tqdm=True,  # `Progress` shows it
    )
    return TrainingArguments(**(shared | dict(run.tracking) | options))


def step_records(history: Sequence[dict[str, Any]], columns: Collection[str]) -> list[dict[str, Any]]:
    """The Trainer's log as step records: `columns` alone, so no times; its `eval_x` is `validation_x` here."""
    renamed = ({key.replace("eval_", "validation_"): value for key, value in entry.items()} for entry in history)
    records = [{key: value for key, value in entry.items() if key in columns} for entry in renamed]
    return [record for record in records if record.keys() - {"step", "epoch"}]
