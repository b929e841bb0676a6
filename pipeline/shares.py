"""What each of several jobs gets of the machine: cores of its own, GPUs of its own.

The number of threads stays what params.yaml says, since results may depend on it: a job's threads share its cores. A
job that is alone has them all, so shares move as jobs begin and end.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil

from captioning.base.errors import UserError
from captioning.params.load import Params

VISIBLE, THREADS = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"
PASSES = 10  # over a job's threads, while some are found that began meanwhile
COUNT = "import torch; print(torch.cuda.device_count())"


def share_cores(cores: Sequence[int], jobs: int) -> list[tuple[int, ...]]:
    """`cores` in order, in shares that differ by one at most; where there are more jobs than cores, some share one."""
    if not cores or not jobs:
        return [()] * jobs
    if jobs > len(cores):
        return [(cores[job % len(cores)],) for job in range(jobs)]
    ends = [len(cores) * job // jobs for job in range(jobs + 1)]
    return [tuple(cores[begin:end]) for begin, end in pairwise(ends)]


def own_cores() -> list[int]:
    """The cores this process may use, those of one physical core side by side; none where the system does not say."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    return sorted(os.sched_getaffinity(0), key=lambda core: (_first_sibling(core), core))


def _first_sibling(core: int) -> int:
    siblings = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        return int(siblings.read_text().replace("-", ",").split(",")[0])
    except (OSError, ValueError):
        return core


def threads_of_all(cores: Sequence[int]) -> dict[str, str]:
    """Where params.yaml says nothing, threads are counted as without shares, as results may depend on their number."""
    return {THREADS: os.environ.get(THREADS, str(len(cores)))} if cores else {}


def confine(process: int, cores: Sequence[int]) -> None:
    """Move every thread of a process, and of what it started, to `cores`; what they start stays there, too."""
    if not cores:
        return
    for _ in range(PASSES):
        if not sum(_moved(thread, set(cores)) for thread in _threads(process)):
            return


def _threads(process: int) -> Iterator[int]:
    with suppress(psutil.Error, OSError):
        found = psutil.Process(process)
        for one in (found, *found.children(recursive=True)):
            with suppress(OSError):
                yield from map(int, os.listdir(f"/proc/{one.pid}/task"))


def _moved(thread: int, cores: set[int]) -> bool:
    with suppress(OSError):  # it has ended
        if os.sched_getaffinity(thread) != cores:
            os.sched_setaffinity(thread, cores)
            return True
    return False


def share_gpus(params: Params, jobs: int) -> list[dict[str, str]]:
    """What each job's environment says of GPUs: nothing on a CPU. Raises `UserError` where there are too few."""
    device, each = params.active.machine.device, params.launch.processes
    if device == "cpu":
        return [{}] * jobs
    if device != "cuda":
        key = f"profiles.{params.profile}.machine.device"
        raise UserError(f"{key}: '{device}' is one GPU, JOBS={jobs} wants one a job; set cuda, or leave JOBS out")
    gpus = visible_gpus()
    if jobs * each > len(gpus):
        fitting = len(gpus) // each
        remedy = f"set JOBS={fitting}" if fitting > 1 else "leave JOBS out"
        takes = f"each job takes launch.processes: {each}"
        raise UserError(f"JOBS={jobs}: {takes} of the GPUs, and {len(gpus)} can be seen ({VISIBLE}); {remedy}")
    return [{VISIBLE: ",".join(gpus[job * each : (job + 1) * each])} for job in range(jobs)]


def visible_gpus() -> list[str]:
    """Numbers or UUIDs of the GPUs that CUDA_VISIBLE_DEVICES leaves, each once; without it torch counts, in another
    process."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        listed = [gpu.strip() for gpu in named.split(",")]
        end = next((place for place, gpu in enumerate(listed) if gpu in ("", "-1")), None)  # as CUDA reads it
        return list(dict.fromkeys(listed[:end]))
    counted = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True)
    return [str(number) for number in range(int(counted.stdout or 0))]
