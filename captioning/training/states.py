"""A `Trainer` that can be killed: its whole state is kept from time to time, and the next run goes on from the newest.

The library's own checkpoints will not do: optimizer and random numbers are pickles, they are not written whole, and the
mean loss between two records is lost. What the library does is the rest: where to go on, and which batches to skip.

A state holds what is trained, its best so far, the optimizer's moments, schedule, random numbers, the `TrainerState`
and the loss since the last record. It is kept between two steps, after what a step or epoch ends with (record,
validation), so that nothing is done twice and nothing left out.
"""

import json
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor
from transformers import Trainer, TrainerCallback

from captioning.compute.processes import SINGLE_PROCESS, Processes, device_folder, device_name
from captioning.runtime.resume import Results, States

T = TypeVar("T")
TRAINED, BEST, MOMENTS, RANDOM, REST = (
    f"{name}.safetensors" for name in ("trained", "best", "moments", "random", "rest")
)
FACTS, PROGRESS = "facts.json", "trainer_state.json"  # the latter is the library's


class ResumableTrainer(Trainer):
    """A `Trainer` that keeps its states in `states`, if any, and leaves its model at its best validated step."""

    def __init__(
        self, *arguments: Any, states: States | None = None, processes: Processes = SINGLE_PROCESS, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.states, self.processes = states, processes
        self.best: dict[str, Tensor] = {}
        self.state_folder: Path | None = None  # what it goes on from
        self.add_callback(StateSaver(self))

    def train(self, *_: Any, **__: Any) -> Any:
        """Train to the end, from the newest state that every process has."""
        step = self._newest()
        if self.states is None or step is None:
            done = super().train()
        else:
            self.args.eval_on_start = False
            self.state_folder = self.states.open_state(step)
            done = super().train(resume_from_checkpoint=str(self.state_folder))
        write_parameters(self.model, self.best)
        return done

    def _newest(self) -> int | None:
        mine = [] if self.states is None else [step for step in self.states.intact_steps() if self._made_here(step)]
        common = set.intersection(*(set(steps) for steps in self.processes.gather_in_order([mine])))
        return max(common, default=None)

    def _made_here(self, step: int) -> bool:
        """Whether a state is of the same kind of device: another rounds otherwise."""
        assert self.states is not None
        facts = json.loads((self.states.state_folder(step) / FACTS).read_text(encoding="utf-8"))
        return facts["device"] == device_name(self.args.device)

    def cached_map(self, name: str, work: Sequence[T], do: Callable[[T], Any]) -> list[Any]:
        """What `do` makes of each piece of `work`, as JSON. What an interrupted run made at this step, with the same
        weights to the bit, is not made again."""
        if self.states is None:
            return [do(one) for one in work]
        folder = device_folder(self.states.folder, self.args.device)
        weights = {key: value.cpu().contiguous() for key, value in trainable_weights(self.model).items()}
        path = folder / f"{name}-{self.state.global_step}-{zlib.crc32(save(weights)):08x}.jsonl"
        for old in set(folder.glob(f"{name}-*.jsonl")) - {path}:
            old.unlink()
        return Results(path).map(work, do)

    def extra_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What a subclass must have again: tensors, and values as JSON."""
        return {}, {}

    def load_extra_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take back what `own_state` gave."""

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        better = super()._determine_best_metric(metrics, trial)
        if better:
            self.best = trainable_weights(self.model)
        return better

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """In place of the library's."""
        if self.states is not None:
            self.states.save(self.state.global_step, self._write)

    def _write(self, folder: Path) -> None:
        moments, settings = split_tensors(self.optimizer.state_dict())
        numbers, drawn = random_state()
        own, values = self.extra_state()
        loss = {"loss": self._tr_loss.detach().cpu()}
        tensors = {TRAINED: trainable_weights(self.model), BEST: self.best, MOMENTS: moments, RANDOM: numbers}
        for name, of in (tensors | {REST: loss | {f"own {key}": value for key, value in own.items()}}).items():
            (folder / name).write_bytes(save({key: value.contiguous() for key, value in of.items()}))
        facts = {
            "device": device_name(self.args.device),
            "optimizer": settings,
            "schedule": self.lr_scheduler.state_dict(),
            "random": drawn,
            "recorded": self._globalstep_last_logged,
            "own": values,
        }
        (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")
        self.state.save_to_json(str(folder / PROGRESS))

    def _read(self, name: str) -> dict[str, Tensor]:
        assert self.state_folder is not None
        return load((self.state_folder / name).read_bytes())

    def _facts(self) -> dict[str, Any]:
        assert self.state_folder is not None
        return json.loads((self.state_folder / FACTS).read_text(encoding="utf-8"))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        write_parameters(self.model, self._read(TRAINED))
        self.best = {name: value.to(self.args.device) for name, value in self._read(BEST).items()}

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            facts = self._facts()
            self.optimizer.load_state_dict(join_tensors(self._read(MOMENTS), facts["optimizer"]))
            self.lr_scheduler.load_state_dict(facts["schedule"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_random_state(self._read(RANDOM), self._facts()["random"])

    def load_unrequested_state(self) -> None:
        """Called when a training begins: what the library does not ask for."""
        if self.state_folder is None:
            return
        tensors, facts = self._read(REST), self._facts()
        self._tr_loss = tensors.pop("loss").to(self.args.device)
        self._globalstep_last_logged = facts["recorded"]
        self.load_extra_state({key.removeprefix("own "): value for key, value in tensors.items()}, facts["own"])
        self._load_rng_state(str(self.state_folder))


class StateSaver(TrainerCallback):
    """Asks for a state when it is time, and at the end of a training."""

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.load_unrequested_state()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Not after an epoch's last step: its validation is still to come, and a resumed run would leave it out."""
        if state.global_step % (state.max_steps // state.num_train_epochs):
            self._ask(control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._ask(control, last=state.global_step >= state.max_steps)

    def _ask(self, control: Any, last: bool = False) -> None:
        states, processes = self.trainer.states, self.trainer.processes
        if states is not None:
            wanted = torch.tensor(int(processes.is_main and (last or states.is_due())), device=self.trainer.args.device)
            control.should_save = bool(processes.sum(wanted))


def trainable_weights(model: Any) -> dict[str, Tensor]:
    """A copy of what is trained, by name."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def write_parameters(model: Any, values: Mapping[str, Tensor]) -> None:
    """Put `values` into the parameters of `model` of these names."""
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            own[name].copy_(value)


def split_tensors(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's state as tensors by `<parameter> <name>`, where need be with names within names, and the rest as
    JSON."""
    every = dict(_leaves(state["state"]))
    tensors = {key: value.clone() for key, value in every.items() if torch.is_tensor(value)}  # some are shared
    rest = {key: value for key, value in every.items() if not torch.is_tensor(value)}
    return tensors, {"values": rest, "groups": state["param_groups"]}


def _leaves(of: Mapping[Any, Any], key: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in of.items():
        place = f"{key} {name}".lstrip()
        if isinstance(value, Mapping):
            yield from _leaves(value, place)
        else:
            yield place, value


def join_tensors(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `split_tensors` was given."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in {**tensors, **settings["values"]}.items():
        place, *names, last = key.split(" ")
        within = state.setdefault(int(place), {})
        for name in names:
            within = within.setdefault(name, {})
        within[last] = value
    return {"state": state, "param_groups": settings["groups"]}


def random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The generators of torch (of a GPU, too), NumPy and Python."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    numpy = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    return tensors, {"numpy": numpy, "python": random.getstate()}


def set_random_state(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Set the generators to what `random_state` gave."""
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"])
    numpy = values["numpy"]
    numpy["state"]["key"] = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state(numpy)
    version, internal, gauss = values["python"]
    random.setstate((version, tuple(internal), gauss))
