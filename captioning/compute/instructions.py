"""Which instructions the numerical libraries use and in how many threads, set before any of them is loaded.

Another instruction set rounds otherwise, and training carries the last digit to another model. Under `avx2` every
x86-64 machine with AVX2 computes the same bytes, whatever it has beyond: held to emulated processors of both makers
(`python -m tools.emulated`, docs/pipeline.md). A GPU's numbers are its own.

1. torch's kernels, oneDNN's, NumPy's and OpenBLAS's are limited to AVX2.
2. MKL computes otherwise on Intel's and on AMD's processors even there, unless it is told to be compatible, which makes
   its products slow: compute/products.py gives these to OpenBLAS. What stays is `torch.sqrt` of float32, MKL's as
   well, off by a unit in the last place here or there: it begins with an estimate that each processor makes its own
   way. No training here takes it: their AdamW is fused, with a root of its own.
3. Threads are counted by params.yaml, so that the number of visible cores changes nothing. OpenBLAS takes one: it would
   never take more than there are cores.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captioning.base.errors import UserError
from captioning.base.yaml_file import read_yaml

AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
    "OPENBLAS_NUM_THREADS": "1",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # torch is told its own number later
SPIN = ("GOMP_SPINCOUNT", "3000")
UNCOMPILED = ("TORCHDYNAMO_DISABLE", "1")  # nothing is compiled here; to prepare for it takes a second at every start


def limit(path: Path = Path("params.yaml")) -> None:
    """Set the environment as the active profile's `machine` says. A malformed file sets nothing; others tell of it.

    Threads that wait for one another spin for some microseconds and then sleep. OpenMP's default spins a hundred times
    longer: beside another busy process a training step then takes a hundred times its time; never spinning makes a step
    three times slower on a quiet machine. No number depends on it.
    """
    os.environ.setdefault(*SPIN)
    os.environ.setdefault(*UNCOMPILED)
    os.environ.update(settings(_machine(path)))


def settings(machine: Mapping[str, Any]) -> dict[str, str]:
    """Environment variables for a profile's `machine`."""
    threads = {name: str(machine["threads"]) for name in THREADS if "threads" in machine}
    return threads | (AVX2 if machine.get("instructions") == "avx2" else {})


def is_limited() -> bool:
    """Whether this process was begun under `avx2`."""
    return os.environ.get("MKL_CBWR") == AVX2["MKL_CBWR"]


def _machine(path: Path) -> Mapping[str, Any]:
    try:
        params = read_yaml(path)
        return dict(params["profiles"][params["profile"]]["machine"])
    except (UserError, KeyError, TypeError, ValueError):
        return {}
