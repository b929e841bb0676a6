"""Assign GPUs to jobs that run side by side."""

import os
import subprocess
import sys

from captioning.base.errors import UserError
from captioning.params.sections import Params

VISIBLE = "CUDA_VISIBLE_DEVICES"
COUNT_GPUS = "import torch; print(torch.cuda.device_count())"


def share_gpus(params: Params, jobs: int) -> list[dict[str, str]]:
    """Return the environment variables that give each job its own GPUs: none on a CPU.

    Raises `UserError` if there are too few GPUs.
    """
    device, processes = params.active.machine.device, params.launch.processes
    if device == "cpu" or (device != "cuda" and jobs == 1):
        return [{}] * jobs
    if device != "cuda":
        key = f"profiles.{params.profile}.machine.device"
        raise UserError(f"{key}: '{device}' is one GPU, but JOBS={jobs} needs one per job; set cuda, or omit JOBS")
    gpus = visible_gpus()
    if jobs * processes > len(gpus):
        fitting = len(gpus) // processes
        remedy = f"set JOBS={fitting}" if fitting > 1 else "omit JOBS"
        needed = f"each job needs {processes} (launch.processes), and {len(gpus)} are visible ({VISIBLE})"
        raise UserError(f"JOBS={jobs}: too few GPUs: {needed}; {remedy}")
    return [{VISIBLE: ",".join(gpus[job * processes : (job + 1) * processes])} for job in range(jobs)]


def visible_gpus() -> list[str]:
    """Return the numbers or UUIDs in CUDA_VISIBLE_DEVICES; if it is not set, those that torch counts in a process."""
    visible = os.environ.get(VISIBLE)
    if visible is None:
        counted = subprocess.run([sys.executable, "-c", COUNT_GPUS], capture_output=True, text=True)
        return [str(number) for number in range(int(counted.stdout or 0))]
    names = [name.strip() for name in visible.split(",")]
    end = next((number for number, name in enumerate(names) if name in ("", "-1")), None)  # as CUDA reads it
    return list(dict.fromkeys(names[:end]))
