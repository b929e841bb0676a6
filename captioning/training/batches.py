"""The rows of each micro-batch: the same optimizer steps, whether one process takes them or several.

Seed and epoch alone determine an epoch's order. It is cut into steps; the rows of a step are dealt to the processes in
turn, and each process cuts its share into micro-batches, perhaps an empty one in a last, short step: no row is
repeated. Rows of unequal length can be sorted within their step, so that a micro-batch needs little padding; this
changes no gradient.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from captioning.compute.processes import SINGLE_PROCESS, Processes


class StepBatches(Sampler[list[int]]):
    """Micro-batches of `batch` row numbers for one process, which takes `accumulation` of them in each step.

    If the data set has `lengths`, the rows of a step are sorted by length. If it has an `epoch`, it is kept up to date.
    """

    def __init__(
        self, rows: Any, batch: int, accumulation: int, seed: int, processes: Processes = SINGLE_PROCESS
    ) -> None:
        self.rows, self.batch, self.accumulation = rows, batch, accumulation
        self.seed, self.processes, self.epoch = seed, processes, 0
        self.lengths: Sequence[int] | None = getattr(rows, "lengths", None)
        self.step_rows = batch * accumulation * processes.count

    def set_epoch(self, epoch: int) -> None:  # the Trainer calls this
        self.epoch = epoch
        if hasattr(self.rows, "epoch"):
            self.rows.epoch = epoch

    def __len__(self) -> int:
        full_steps, remaining = divmod(len(self.rows), self.step_rows)
        return full_steps * self.accumulation + -(-remaining // (self.batch * self.processes.count))

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(len(self.rows), generator=generator).tolist()
        for start in range(0, len(self.rows), self.step_rows):
            step = order[start : start + self.step_rows]
            if self.lengths is not None:
                step.sort(key=self.lengths.__getitem__)
            share = list(self.processes.share(step))
            largest_share = -(-len(step) // self.processes.count)
            yield from (share[first : first + self.batch] for first in range(0, largest_share, self.batch))


class EpochLoader(DataLoader):
    """A loader that passes the epoch on to its `StepBatches`; in a resumed epoch, the Trainer does so itself."""

    def set_epoch(self, epoch: int) -> None:  # the Trainer calls this
        batches: Any = self.batch_sampler
        batches.set_epoch(epoch)
