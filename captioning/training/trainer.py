"""The transformers `Trainer` of all trainings here. Ours are the loss, how rows reach it, and the following.

1. A loss is a sum, divided once by the number of its terms (labelled tokens, captions) in the whole optimizer step. So
   neither accumulation nor several processes change it (training/batches.py, compute/processes.py).
2. A validation loss is a mean over tokens, not the mean of the batches' means.
3. A loss or a gradient that is not finite ends the training before the optimizer's step. Both are already summed over
   the processes, so that all of them stop at the same step. Weights are checked before each saved state.
4. If the model computes in float16, losses are scaled, and a step whose gradients overflow is skipped
   (training/scaling.py).
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from peft.optimizers import create_loraplus_optimizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from captioning.compute.processes import SINGLE_PROCESS, Processes
from captioning.paligemma.model import IGNORED
from captioning.runtime.progress import progress
from captioning.training.batches import EpochLoader, StepBatches
from captioning.training.run import TrainingRun
from captioning.training.scaling import LossScaling
from captioning.training.states import ResumableTrainer

Loss = Callable[[Any, dict[str, Any], Any], torch.Tensor]  # of model, batch and divisor
OPTIMIZERS = {"adamw": "adamw_torch_fused", "paged-adamw-8bit": "paged_adamw_8bit"}  # names of the Trainer


class SharedTrainer(ResumableTrainer):
    """A `Trainer` that shares its steps among `processes`; it runs in each of them and knows of one.

    `lora_plus`: learning rate of the adapters' B over that of A (Hayou et al. 2024, arXiv:2402.12354).
    """

    def __init__(
        self, *arguments: Any, processes: Processes = SINGLE_PROCESS, lora_plus: float = 1.0, **options: Any
    ) -> None:
        super().__init__(*arguments, processes=processes, **options)
        self.remove_callback(PrinterCallback)
        self.add_callback(StepBar())
        self.lora_plus = lora_plus
        self.local_loss = torch.zeros((), device=self.args.device)  # of this process's micro-batches of a step
        is_float16 = getattr(self.model, "dtype", None) == torch.float16  # that of the PaliGemma in an adapter
        self.scaling = LossScaling(self.args.device) if is_float16 else None
        torch.manual_seed(self.args.seed + processes.rank)  # each process draws its own dropout
        self.model_accepts_loss_kwargs = True  # otherwise the Trainer divides by the accumulation a second time

    def count_loss_terms(self, batch: dict[str, Any]) -> int:
        """Return the number of terms in the loss of `batch`: its labelled tokens or, without labels, its rows."""
        if "labels" in batch:
            return int((batch["labels"][:, 1:] != IGNORED).sum())
        return len(next(iter(batch.values())))

    def get_train_dataloader(self) -> EpochLoader:
        rows: Any = self.train_dataset
        args, collate = self.args, self.data_collator
        sizes = args.per_device_train_batch_size, args.gradient_accumulation_steps
        batches = StepBatches(rows, *sizes, args.seed, self.processes)
        options = {"batch_sampler": batches, "pin_memory": args.dataloader_pin_memory}
        return EpochLoader(rows, collate_fn=lambda examples: collate(examples) if examples else {}, **options)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """Return the micro-batches of a step, and the number of its loss terms over all processes."""
        batches = list(islice(epoch_iterator, num_batches))
        terms = sum(self.count_loss_terms(batch) for batch in batches if batch)
        return batches, self.processes.sum(torch.tensor(terms, device=device))

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: nobody reads the estimate, for which the Trainer counts all weights in each step."""
        return 0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Run forward and backward of one micro-batch, which may be empty; after the last one of a step, complete the
        step's gradients."""
        if self.scaling is not None:  # after `prepare`, so that only `backward` uses it, and not the optimizer
            self.accelerator.scaler = self.scaling.scaler
        loss = torch.zeros((), device=self.args.device)
        if inputs:
            loss = super().training_step(model, inputs, num_items_in_batch)
        loss = self._complete_loss(model, loss)
        if self.scaling is not None and self.accelerator.sync_gradients:
            self.scaling.unscale_or_skip(self.optimizer, self.state.global_step + 1)
        return loss

    def _complete_loss(self, model: Any, loss: torch.Tensor) -> torch.Tensor:
        """Sum gradients and losses over the processes after the last micro-batch of a step, so that they wait once a
        step; return the loss to log. Raises `UserError` if it is not finite."""
        if self.processes.count == 1:
            self.require_finite("loss", float(loss))
            return loss
        self.local_loss = self.local_loss + loss
        if not self.accelerator.sync_gradients:
            return torch.zeros_like(loss)
        self.processes.sum_gradients(model.parameters())
        step_loss, self.local_loss = self.processes.sum(self.local_loss.clone()), torch.zeros_like(loss)
        self.require_finite("loss", float(step_loss))
        return step_loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> float | None:
        """Return the norm of the step's gradients; the Trainer asks for it before the optimizer's step."""
        norm = super()._get_grad_norm(model, grad_norm)
        self.require_finite("norm of the gradients", float(norm))
        return norm

    def train(self, *arguments: Any, **options: Any) -> Any:
        output = super().train(*arguments, **options)
        if self.scaling is not None and self.processes.is_main:
            self.scaling.report(self.state.global_step)
        return output

    @property
    def scaling_summary(self) -> dict[str, Any]:
        """What a training's result says of its loss scaling: nothing if there is none."""
        return {} if self.scaling is None else self.scaling.summary

    def extra_state(self) -> dict[str, Any]:
        return {} if self.scaling is None else {"scaling": self.scaling.state()}

    def load_extra_state(self, values: Mapping[str, Any]) -> None:
        if self.scaling is not None:
            self.scaling.load_state(values["scaling"])

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None and self.lora_plus != 1:  # type: ignore[has-type]
            kind, options = self.get_optimizer_cls_and_kwargs(self.args)
            rates = {"loraplus_lr_ratio": self.lora_plus, "loraplus_weight_decay": self.args.weight_decay}
            self.optimizer = create_loraplus_optimizer(self.model, kind, **rates, **options)
        return super().create_optimizer(model)

    def eval_batches(self) -> Sequence[range]:
        """Return this process's share of the validation batches, as ranges of row numbers."""
        rows: Any = self.eval_dataset
        size, count = self.args.per_device_eval_batch_size, len(rows)
        return self.processes.share([range(start, min(start + size, count)) for start in range(0, count, size)])

    def report_validation(self, metrics: dict[str, float]) -> dict[str, float]:
        """Log `metrics`, and notify the Trainer that this step has been validated."""
        self.log(metrics)
        control: Any = self.control  # type: ignore[has-type]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics


class StepBar(TrainerCallback):
    """A progress bar of the optimizer's steps."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = progress(None, state.max_steps, "steps")
        self.bar.update(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()


class LossTrainer(SharedTrainer):
    """A `SharedTrainer` whose loss is a function of model, batch and the step's number of loss terms."""

    def __init__(self, *arguments: Any, loss: Loss, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.loss = loss

    def compute_loss(self, model: Any, inputs: Any, *_: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        with attention_kernel(self.args.device):
            return self.loss(model, inputs, num_items_in_batch)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the mean loss of the validation rows, per loss term."""
        rows: Any = self.eval_dataset
        model = self.model.eval()

        def sum_batch(numbers: range) -> tuple[float, int]:
            batch = self._prepare_inputs(self.data_collator([rows[number] for number in numbers]))
            with torch.no_grad(), attention_kernel(self.args.device):
                loss = float(self.loss(model, batch, 1))
            self.require_finite("validation loss", loss, self.state.global_step)  # before it is saved for the next run
            return loss, self.count_loss_terms(batch)

        columns = zip(*self.cached_map("validation", self.eval_batches(), sum_batch), strict=True)
        sums = [math.fsum(column) for column in columns] or [0.0, 0.0]
        loss, terms = self.processes.sum(torch.tensor(sums, dtype=torch.float64, device=self.args.device)).tolist()
        return self.report_validation({"eval_loss": loss / terms})


def attention_kernel(device: torch.device) -> AbstractContextManager[None]:
    """Return a context that computes attention in plain products on a CPU, where the fused kernel's backward takes a
    third of a step; it changes nothing on a GPU. It decides about the backward of what is computed within it, too."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else nullcontext()


def micro_batches(items: int, size: int, processes: Processes) -> dict[str, int]:
    """Cut a process's share of the `items` of a step into micro-batches of at most `size`; return the Trainer's
    options."""
    share = items // processes.count
    micro_batch = min(size, share)
    return {"per_device_train_batch_size": micro_batch, "gradient_accumulation_steps": share // micro_batch}


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
        label_names=["labels"],
        dataloader_pin_memory=run.device != "cpu",
        save_strategy="no",
        disable_tqdm=True,  # `StepBar` shows progress
    )
    return TrainingArguments(**(shared | dict(run.tracking) | options))


def step_records(history: Sequence[dict[str, Any]], columns: Collection[str]) -> list[dict[str, Any]]:
    """Return the Trainer's log as step records: only `columns`, and `validation_x` for its `eval_x`."""
    renamed = ({key.replace("eval_", "validation_"): value for key, value in entry.items()} for entry in history)
    records = [{key: value for key, value in entry.items() if key in columns} for entry in renamed]
    return [record for record in records if record.keys() - {"step", "epoch"}]
