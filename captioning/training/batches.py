"""Which rows each micro-batch holds, the same optimizer steps whether one process takes them or several.

An epoch's order is drawn from seed and epoch alone. It is cut into steps, the rows of a step are dealt to the processes
in turn, and each process cuts its own into micro-batches. In a last, short step a process may get an empty one: no row
is repeated to fill it.

Rows of unequal length may be sorted within their step, so that a micro-batch holds rows of about one length, little is
padded, and no process waits long for another. A step's rows, and so its gradient, are the same.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from captioning.compute.processes import SINGLE_PROCESS, Processes


class StepBatches(Sampler[list[int]]):
    """Micro-batches of `batch` row numbers for one process, which takes `accumulation` of them in each step.

    If the data set has `lengths`, the rows of a step are sorted by length; if it has an `epoch`, it is kept up to date.
    """

    def __init__(
        self, rows: Any, batch: int, accumulation: int, seed: int, processes: Processes = SINGLE_PROCESS
    ) -> None:
        self.rows, self.batch, self.accumulation = rows, batch, accumulation
        self.seed, self.processes, self.epoch = seed, processes, 0
        self.lengths: Sequence[int] | None = getattr(rows, "lengths", None)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer."""
        self.epoch = epoch
        if hasattr(self.rows, "epoch"):
            self.rows.epoch = epoch

    @property
    def step(self) -> int:
        """Rows of a step, over all processes."""
        return self.batch * self.accumulation * self.processes.count

    def __len__(self) -> int:
        whole, rest = divmod(len(self.rows), self.step)
        return whole * self.accumulation + -(-rest // (self.batch * self.processes.count))

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        order = torch.randperm(len(self.rows), generator=generator).tolist()
        for begin in range(0, len(self.rows), self.step):
            step = order[begin : begin + self.step]
            if self.lengths is not None:
                step.sort(key=self.lengths.__getitem__)
            own = list(self.processes.share(step))
            longest = -(-len(step) // self.processes.count)
            yield from (own[place : place + self.batch] for place in range(0, longest, self.batch))


class EpochLoader(DataLoader):
    """A loader of `StepBatches` that tells them which epoch begins.

    Of a loader without its first batches, which a resumed training has, the Trainer tells the batches themselves.
    """

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer."""
        batches: Any = self.batch_sampler
        batches.set_epoch(epoch)
