"""Set which instructions and how many threads the numerical libraries use, before any of them is loaded.

Another instruction set rounds differently, and training turns a different last digit into a different model. With
`avx2`, every x86-64 machine that has AVX2 computes the same bytes. `python -m tools.emulated` tests this on emulated
processors of Intel and AMD (docs/pipeline.md). A GPU computes its own numbers.

1. The kernels of torch, oneDNN, NumPy and OpenBLAS are limited to AVX2.
2. Even then, MKL computes differently on Intel and AMD processors unless `MKL_CBWR=COMPATIBLE`, which makes its matrix
   products slow; compute/products.py gives these to OpenBLAS. One operation still differs by a unit in the last place:
   `torch.sqrt` of float32, which starts from an estimate that depends on the processor. No training here calls it,
   since fused AdamW has its own square root.
3. params.yaml sets the number of threads, so the number of visible cores has no effect. OpenBLAS gets one thread,
   because it never uses more threads than there are cores.
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
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # torch gets its own number later
SPIN = ("GOMP_SPINCOUNT", "3000")
NO_COMPILER = (
    "TORCHDYNAMO_DISABLE",
    "1",
)  # nothing is compiled here, and preparing the compiler takes a second at each start


def limit_instructions(path: Path = Path("params.yaml")) -> None:
    """Set the environment as the active profile's `machine` says. A malformed file is reported later, by `check`.

    Threads that wait for each other spin for some microseconds and then sleep. OpenMP's default spins a hundred times
    longer: beside another busy process, a training step then takes a hundred times as long. Without any spinning, a
    step takes three times as long on a quiet machine. The setting changes no result.
    """
    os.environ.setdefault(*SPIN)
    os.environ.setdefault(*NO_COMPILER)
    os.environ.update(environment_variables(_read_machine(path)))


def environment_variables(machine: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables for a profile's `machine` section."""
    threads = {name: str(machine["threads"]) for name in THREADS if "threads" in machine}
    return threads | (AVX2 if machine.get("instructions") == "avx2" else {})


def is_limited() -> bool:
    """Return whether this process started with `avx2`."""
    return os.environ.get("MKL_CBWR") == AVX2["MKL_CBWR"]


def _read_machine(path: Path) -> Mapping[str, Any]:
    try:
        params = read_yaml(path)
        return dict(params["profiles"][params["profile"]]["machine"])
    except (UserError, KeyError, TypeError, ValueError):
        return {}
