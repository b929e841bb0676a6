"""Set which instructions and how many threads the numerical libraries use, before any of them is loaded.

Another instruction set rounds differently, and training turns a different last digit into a different model. With
`avx2`, every x86-64 machine that has AVX2 computes the same bytes (`python -m tools.emulated` tests this,
docs/pipeline.md). A GPU computes its own numbers.

1. The kernels of torch, oneDNN, NumPy and OpenBLAS are limited to AVX2.
2. Even then, MKL computes differently on Intel and AMD unless `MKL_CBWR=COMPATIBLE`, which makes its matrix products
   slow; compute/products.py gives these to OpenBLAS. `torch.sqrt` of float32 still differs in the last place; no
   training here calls it, since fused AdamW has its own square root.
3. params.yaml sets the number of threads, so the number of visible cores has no effect. OpenBLAS gets one thread,
   because it never uses more threads than there are cores.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
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
NO_COMPILER = ("TORCHDYNAMO_DISABLE", "1")  # preparing the compiler takes a second at each start


def limit_instructions(path: Path = Path("params.yaml")) -> None:
    """Set the environment as the active profile's `machine` says. A malformed file is reported later, by `check`.

    Threads that wait for each other spin for some microseconds and then sleep: with OpenMP's default, a step takes a
    hundred times as long beside another busy process; without spinning, three times as long on a quiet machine.
    """
    os.environ.setdefault(*SPIN)
    os.environ.setdefault(*NO_COMPILER)
    with suppress(UserError, KeyError, TypeError, ValueError):
        params = read_yaml(path)
        machine = dict(params["profiles"][params["profile"]]["machine"])
        os.environ.update(environment_variables(machine))


def environment_variables(machine: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables for a profile's `machine` section."""
    threads = {name: str(machine["threads"]) for name in THREADS if "threads" in machine}
    return threads | (AVX2 if machine.get("instructions") == "avx2" else {})


def is_limited() -> bool:
    """Return whether this process started with `avx2`."""
    return os.environ.get("MKL_CBWR") == AVX2["MKL_CBWR"]
