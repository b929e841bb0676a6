"""A `Trainer` that may be killed: it saves its state from time to time, and the next run continues from the newest.

The library's own checkpoints pickle optimizer and random numbers, are not written atomically, and forget the losses
since the last log entry. The library does the rest: it skips the finished batches of an epoch. A state is saved between
two steps, after a step's log and validation, so that nothing is computed twice, and only if its weights are finite.
"""

import json
import math
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor
from transformers import Trainer, TrainerCallback

from captioning.base.errors import UserError
from captioning.compute.processes import SINGLE_PROCESS, Processes
from captioning.runtime.resume import Results, States

T = TypeVar("T")
TENSOR_FILE, VALUE_FILE = "state.safetensors", "state.json"
PROGRESS_FILE = "trainer_state.json"  # the library's name
TENSOR = "<tensor>"  # key of a tensor's number in VALUE_FILE


class ResumableTrainer(Trainer):
    """A `Trainer` that saves its states in `states`, if any, and leaves its model at its best validated step."""

    def __init__(
        self,
        *arguments: Any,
        rate_key: str = "its learning rate",
        states: States | None = None,
        processes: Processes = SINGLE_PROCESS,
        **options: Any,
    ) -> None:
        """`rate_key`: the key of params.yaml that sets the learning rate, for a message."""
        super().__init__(*arguments, **options)
        self.rate_key, self.states, self.processes = rate_key, states, processes
        self.best_weights: dict[str, Tensor] = {}
        self.resumed_state: Path | None = None
        self.add_callback(StateSaver(self))

    def train(self, *_: Any, **__: Any) -> Any:
        """Train to the end, from the newest state that every process has."""
        steps = [] if self.states is None else self.states.intact_steps()
        common = set.intersection(*map(set, self.processes.gather_in_order([steps])))
        if self.states is not None and common:
            self.args.eval_on_start = False
            self.resumed_state = self.states.open_state(max(common))
        output = super().train(resume_from_checkpoint=None if self.resumed_state is None else str(self.resumed_state))
        write_parameters(self.model, self.best_weights)
        self.require_finite_weights()
        return output

    def require_finite(self, label: str, value: float, step: int | None = None) -> None:
        """Raise `UserError` if `value` is not finite; `step`: None in the step that is not yet complete."""
        if not math.isfinite(value):
            number = self.state.global_step + 1 if step is None else step
            raise UserError(
                f"the {label} is {value} at step {number}, so this training ends there without a result; lower "
                f"{self.rate_key}, or run it again if the machine was at fault: it goes on from its last sound state"
            )

    def require_finite_weights(self) -> None:
        """Raise `UserError` if a trained weight is not finite."""
        largest = [value.detach().abs().max() for value in self.model.parameters() if value.requires_grad]
        self.require_finite("largest weight", float(torch.stack(largest).max()), self.state.global_step)

    def cached_map(self, name: str, items: Sequence[T], function: Callable[[T], Any]) -> list[Any]:
        """Apply `function`, which returns JSON, to `items`, but reuse the results that an interrupted run saved at this
        step, with exactly the same weights and items."""
        if self.states is None:
            return [function(item) for item in items]
        weights = {key: value.cpu().contiguous() for key, value in trainable_weights(self.model).items()}
        checksum = zlib.crc32(save(weights), zlib.crc32(repr(list(items)).encode()))
        path = self.states.folder / f"{name}-{self.state.global_step}-{checksum:08x}.jsonl"
        for old in set(path.parent.glob(f"{name}-*.jsonl")) - {path}:
            old.unlink()
        return Results(path).map(items, function)

    def extra_state(self) -> dict[str, Any]:
        """Return what a subclass must have again, as JSON and tensors."""
        return {}

    def load_extra_state(self, values: Mapping[str, Any]) -> None:
        """Restore what `extra_state` returned."""

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        is_best = super()._determine_best_metric(metrics, trial)
        self.best_weights = trainable_weights(self.model) if is_best else self.best_weights
        return is_best

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save a state in place of the library's checkpoint."""
        if self.states is not None:
            self.require_finite_weights()
            self.states.save(self.state.global_step, self._write_state)

    def _write_state(self, folder: Path) -> None:
        state = {
            "trained": trainable_weights(self.model),
            "best": self.best_weights,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.lr_scheduler.state_dict(),
            "random": random_state(),
            "loss": self._tr_loss,
            "last_record": self._globalstep_last_logged,
            "extra": self.extra_state(),
        }
        write_tree(folder, state)
        self.state.save_to_json(str(folder / PROGRESS_FILE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        state = read_tree(resume_from_checkpoint)
        self.best_weights = state["best"]
        write_parameters(self.model, state["trained"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            state = read_tree(checkpoint)
            load_optimizer(self.optimizer, state["optimizer"])
            self.lr_scheduler.load_state_dict(state["schedule"])

    def _load_rng_state(self, checkpoint: Any) -> None:
        set_random_state(read_tree(checkpoint)["random"])

    def load_remaining_state(self) -> None:
        """Restore what the library has no method for, when a training starts."""
        if self.resumed_state is not None:
            state = read_tree(self.resumed_state)
            self._tr_loss = state["loss"].to(self.args.device)
            self._globalstep_last_logged = state["last_record"]
            self.load_extra_state(state["extra"])


class StateSaver(TrainerCallback):
    """Request a state when one is due, and at the end of a training; restore the rest of a state at its beginning."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.load_remaining_state()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Save no state at an epoch's last step: a run that continues from it would skip the validation."""
        if state.global_step % (state.max_steps // state.num_train_epochs):
            self._request(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._request(control, is_last=state.global_step >= state.max_steps)

    def _request(self, control: Any, is_last: bool = False) -> None:
        """Let the main process decide for all: their clocks differ."""
        states, processes = self.trainer.states, self.trainer.processes
        if states is not None:
            is_due = processes.is_main and (is_last or states.is_due())
            control.should_save = bool(processes.sum(torch.tensor(int(is_due), device=self.trainer.args.device)))


def trainable_weights(model: Any) -> dict[str, Tensor]:
    """Return a copy of the trained parameters, by name."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def write_parameters(model: Any, values: Mapping[str, Tensor]) -> None:
    """Put `values` into the parameters of `model` that have these names."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)


def write_tree(folder: Path, tree: Mapping[str, Any]) -> None:
    """Write JSON that contains tensors: these become a safetensors file, since no state may be a pickle."""
    tensors: dict[str, Tensor] = {}
    values = _take_tensors(tree, tensors)
    (folder / TENSOR_FILE).write_bytes(save(tensors))
    (folder / VALUE_FILE).write_text(json.dumps(values), encoding="utf-8")


def read_tree(folder: Path | str) -> dict[str, Any]:
    """Read what `write_tree` wrote; keys are text, and tuples are lists."""
    tensors = load((Path(folder) / TENSOR_FILE).read_bytes())
    values = (Path(folder) / VALUE_FILE).read_text(encoding="utf-8")
    return json.loads(values, object_hook=lambda item: tensors[item[TENSOR]] if TENSOR in item else item)


def _take_tensors(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if torch.is_tensor(tree):
        number = str(len(tensors))
        tensors[number] = tree.detach().clone(memory_format=torch.contiguous_format)  # optimizers share some tensors
        return {TENSOR: number}
    if isinstance(tree, Mapping):
        return {key: _take_tensors(value, tensors) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_take_tensors(item, tensors) for item in tree]
    return tree


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Give `optimizer` a state that came through JSON, whose keys are text."""
    moments = {int(number): values for number, values in state["state"].items()}
    optimizer.load_state_dict(state | {"state": moments})


def random_state() -> dict[str, Any]:
    """Return the state of the generators of torch (also of a GPU), NumPy and Python."""
    numpy = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {"torch": torch.get_rng_state(), "cuda": cuda, "numpy": numpy, "python": random.getstate()}


def set_random_state(state: Mapping[str, Any]) -> None:
    """Set the generators to a state that `random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
    numpy = state["numpy"]
    numpy["state"]["key"] = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy)
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
