"""Run one stage in several processes, one for each GPU. torchrun starts them; each takes its share of every batch.

The results equal those of one process, up to rounding: every sum over a step is a sum over its processes.

1. This module sums gradients itself, once a step and before clipping. DDP averages, and it sees only what passes
   through its own forward: SCST's loss does not, so each process would train alone, without an error.
2. The Trainer knows of one process only. If it knew of more, it would repeat rows to fill uneven batches, and average
   averages. Each process also sees one GPU: a Trainer that sees two copies the model to both.
3. Processes exchange sums and JSON, never pickles. torchrun's rendezvous is static, since the default one unpickles
   what it finds in a store that listens to the network.
"""

import json
import os
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.utils.distributed import get_free_port
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from captioning.base.errors import Terminated

T = TypeVar("T")
TIMEOUT = timedelta(hours=2)  # the others wait while one process scores or saves
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Processes:
    """This process among the `count` processes that run a stage together."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Return whether this process writes the outputs."""
        return self.rank == 0

    def threads(self, threads: int) -> int:
        """Return this process's share of a machine's `threads`."""
        return max(1, threads // self.count)

    def sum(self, values: Tensor) -> Tensor:
        """Sum `values` over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's share of `items`: every `count`-th."""
        return items[self.rank :: self.count]

    def gather_in_order(self, local: Sequence[Any]) -> list[Any]:
        """Return the results of all shares in the order of the items; each is JSON (a tuple comes back as a list)."""
        if self.count == 1:
            return list(local)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        message = torch.frombuffer(bytearray(json.dumps(list(local)).encode()), dtype=torch.uint8).to(device)
        lengths = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(self.count)]
        dist.all_gather(lengths, torch.tensor([len(message)], device=device))
        padded = torch.full((int(max(lengths)),), ord(" "), dtype=torch.uint8, device=device)  # JSON may end in spaces
        padded[: len(message)] = message
        buffers = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(buffers, padded)
        shares = [json.loads(bytes(buffer.tolist())) for buffer in buffers]
        return [shares[number % self.count][number // self.count] for number in range(sum(map(len, shares)))]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Sum gradients over the processes; a parameter without a gradient counts as zero."""
        if self.count == 1:
            return
        trained = [weight for weight in parameters if weight.requires_grad]
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in trained]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for weight, summed in zip(trained, total.split([weight.numel() for weight in trained]), strict=True):
            weight.grad = summed.view_as(weight).clone()

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            dist.barrier()


SINGLE_PROCESS = Processes()


def start_processes(processes: int, device: str) -> Processes | None:
    """Return this process among `processes`, or None in the process that started them, once they have finished. Exits
    if one of them failed. Call this before any computation."""
    if processes == 1:
        show_one_gpu(device, 0)
        return SINGLE_PROCESS
    if "LOCAL_RANK" in os.environ:
        return _join_processes(device)
    host, options = f"127.0.0.1:{get_free_port()}", {"rank": 0, "timeout": 900}
    config = LaunchConfig(
        1, 1, processes, run_id="stage", rdzv_backend="static", rdzv_endpoint=host, rdzv_configs=options, max_restarts=0
    )
    module = sys.modules["__main__"].__spec__
    try:
        elastic_launch(config, sys.executable)("-m", module.name if module else "stages", *sys.argv[1:])
    except ChildFailedError as failed:
        cause = min(failed.failures.values(), key=_cause_order)
        if cause.exitcode < 0:
            print(f"error: one of the {processes} processes was ended by {cause.signal_name()}", file=sys.stderr)
        sys.exit(1)  # otherwise that process printed its error
    except SignalException as interruption:
        raise (Terminated if interruption.sigval == signal.SIGTERM else KeyboardInterrupt) from None
    return None


def _cause_order(failure: ProcessFailure) -> tuple[bool, int]:
    """Put a process that a signal ended first, then the earliest: the others fail for want of it, or get SIGTERM."""
    return failure.exitcode >= 0 or failure.exitcode == -signal.SIGTERM, failure.timestamp


def _join_processes(device: str) -> Processes:
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    show_one_gpu(device, int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=TIMEOUT)
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):  # otherwise the Trainer finds the other processes
        del os.environ[name]
    return Processes(rank, count)


def show_one_gpu(device: str, index: int) -> None:
    """Hide all GPUs except number `index` of the visible ones (`cuda`), or the one that `device` names (`cuda:1`)."""
    if not device.startswith("cuda"):
        return
    visible = os.environ.get(VISIBLE_GPUS)
    known = visible.split(",") if visible else [str(number) for number in range(256)]
    wanted = int(device.partition(":")[2] or index)
    if wanted < len(known):  # otherwise torch reports which GPUs exist
        os.environ[VISIBLE_GPUS] = known[wanted]


def device_name(device: torch.device) -> str:
    """Return a GPU's model and CUDA version, or the type of another device."""
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}" if device.type == "cuda" else device.type


def device_folder(folder: Path, device: torch.device) -> Path:
    """Return the subfolder for this kind of device. Another kind rounds differently and starts from the beginning."""
    return folder / re.sub(r"\W+", "-", device_name(device))


def visible_device(device: str) -> str:
    """Return the name of `device` after `start_processes` has hidden the other GPUs."""
    return "cuda" if device.startswith("cuda") else device
