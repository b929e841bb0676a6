"""What decides the last digit of a computation, set once at its begin."""

import random

import numpy as np
import torch

from captioning.compute.instructions import is_limited
from captioning.compute.products import use_openblas


def seed_everything(seed: int, threads: int) -> None:
    """Seed Python, NumPy and torch, and pin the number of threads, so that visible cores change nothing; with
    `machine.instructions: avx2`, let OpenBLAS multiply matrices."""
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # of every GPU as well
    if is_limited():
        use_openblas()
