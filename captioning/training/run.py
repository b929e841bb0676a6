"""One run of a training on this machine: what is not in its recipe."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from captioning.compute.processes import SINGLE_PROCESS, Processes, device_folder
from captioning.params.load import load_params
from captioning.runtime.resume import States, exclusive_run_folder
from captioning.runtime.tracking import tracked


@dataclass(frozen=True)
class TrainingRun:
    """Seed, device, folder, processes, saved states and trackers of one training."""

    seed: int
    device: str
    folder: Path  # for decoded images, features and states; all processes share it
    processes: Processes = SINGLE_PROCESS
    state_interval: float | None = None  # seconds between two states; None: no states are saved
    tracking: Mapping[str, Any] = field(default_factory=dict)  # options of TrainingArguments

    @property
    def process_folder(self) -> Path:
        return self.folder / str(self.processes.rank)

    def states(self, part: str = "") -> States | None:
        """Return the states, saved on this kind of device, of this training or of one `part` of it."""
        if self.state_interval is None:
            return None
        return States(device_folder(self.process_folder / part, torch.device(self.device)), self.state_interval)


@contextmanager
def open_run(name: str, seed: int, device: str, processes: Processes) -> Iterator[TrainingRun]:
    """Give the run of the training called `name`; params.yaml says how often it saves states, and who tracks it."""
    params = load_params()  # no stage that trains lists it: only settings that change no output are used
    with (
        exclusive_run_folder(processes.is_main, processes.wait) as folder,
        tracked(params.tracking, name, processes.is_main) as tracking,
    ):
        yield TrainingRun(seed, device, folder, processes, params.resume.state_interval, tracking)
