"""Several processes of one stage, one a GPU: torchrun starts them, each works on its share of every batch.

The results are those of one process, to rounding: what is summed over a step is summed over its processes.

1. Gradients are summed by hand, once a step and before clipping, not by DDP. DDP averages, and sees only what passes
   through its own forward: a loss that goes past it, as SCST's does, trains each process alone, without an error.
2. The Trainer is told of one process. Told of more, it repeats rows where batches do not come out even, and takes means
   of means.
3. Each process sees one GPU. A Trainer that sees two copies the model onto both.
4. What processes tell one another are sums and JSON, no pickles; nor does torchrun where its rendezvous is static (the
   default one unpickles what it finds in a store that listens to the network).
"""

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from captioning.base.errors import Terminated

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # one process scores or saves while the others wait
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Processes:
    """One of `count` processes that do a stage together; alone, every method is what it would be without."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes outputs."""
        return self.rank == 0

    def threads(self, threads: int) -> int:
        """What of a machine's `threads` falls to this process."""
        return max(1, threads // self.count)

    def sum(self, values: Tensor) -> Tensor:
        """`values` added up over the processes, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """What of `items` falls to this process."""
        return items[self.rank :: self.count]

    def together(self, mine: Sequence[Any]) -> list[Any]:
        """The results of all shares in the order of the items; each is JSON (a tuple comes back as a list)."""
        if self.count == 1:
            return list(mine)
        return [one[0] for one in chain(*zip_longest(*([[one] for one in of] for of in self._gather(mine)))) if one]

    def _gather(self, mine: Sequence[Any]) -> list[list[Any]]:
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        told = torch.frombuffer(bytearray(json.dumps(list(mine)).encode()), dtype=torch.uint8).to(device)
        lengths = [torch.zeros(1, dtype=torch.long, device=device) for _ in range(self.count)]
        dist.all_gather(lengths, torch.tensor([len(told)], device=device))
        longest = int(max(lengths))
        buffers = [torch.zeros(longest, dtype=torch.uint8, device=device) for _ in range(self.count)]
        dist.all_gather(buffers, torch.nn.functional.pad(told, (0, longest - len(told))))
        return [
            json.loads(bytes(buffer[: int(length)].tolist())) for buffer, length in zip(buffers, lengths, strict=True)
        ]

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Gradients added up over the processes; one that has none, because nothing fell to it, counts as zero."""
        if self.count == 1:
            return
        trained = [one for one in parameters if one.requires_grad]
        flat = torch.cat([(torch.zeros_like(one) if one.grad is None else one.grad).flatten() for one in trained])
        for one, summed in zip(trained, self.sum(flat).split([one.numel() for one in trained]), strict=True):
            one.grad = summed.view_as(one).clone()

    def wait(self) -> None:
        """Until every process is here."""
        if self.count > 1:
            dist.barrier()


ALONE = Processes()


def start(processes: int, device: str) -> Processes | None:
    """This process's place among `processes`; None where they were started here and have done the stage's work.

    Ends the program where one of them failed. Call it before anything is computed.
    """
    if processes == 1:
        see_one_gpu(device, 0)
        return ALONE
    if "LOCAL_RANK" in os.environ:
        return _join(device)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=processes, rdzv_backend="static",
        rdzv_endpoint=f"127.0.0.1:{free_port()}", rdzv_configs={"rank": 0, "timeout": 900},
        run_id="stage", max_restarts=0, monitor_interval=0.2,
    )  # fmt: skip
    module = sys.modules["__main__"].__spec__
    try:
        elastic_launch(config, sys.executable)("-m", module.name if module else "stages", *sys.argv[1:])
    except ChildFailedError as failed:
        first = failed.get_first_failure()[1]
        if first.exitcode < 0:
            print(f"error: one of the {processes} processes was ended by {first.signal_name()}", file=sys.stderr)
        sys.exit(1)  # else it has said why
    except SignalException as given:
        raise (Terminated if given.sigval == signal.SIGTERM else KeyboardInterrupt) from None
    return None


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _join(device: str) -> Processes:
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    see_one_gpu(device, int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    for name in ("LOCAL_RANK", "RANK", "WORLD_SIZE"):  # from which the Trainer would learn of the others
        del os.environ[name]
    return Processes(rank, count)


def see_one_gpu(device: str, place: int) -> None:
    """Hide every GPU but the `place`-th that is visible (`cuda`), or the one that `device` names (`cuda:1`)."""
    if not device.startswith("cuda"):
        return
    visible = os.environ.get(VISIBLE)
    known = visible.split(",") if visible else [str(number) for number in range(256)]
    wanted = int(device.partition(":")[2] or place)
    if wanted < len(known):  # else torch says what there is
        os.environ[VISIBLE] = known[wanted]


def device_name(device: torch.device) -> str:
    """A GPU's model with its CUDA; of a CPU the fingerprint tells."""
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}" if device.type == "cuda" else device.type


def device_folder(folder: Path, device: torch.device) -> Path:
    """The part of `folder` for what this kind of device has made: another rounds otherwise, and begins anew."""
    return folder / re.sub(r"\W+", "-", device_name(device))


def one_gpu(device: str) -> str:
    """The name of `device` once `start` has hidden the others."""
    return "cuda" if device.startswith("cuda") else device
