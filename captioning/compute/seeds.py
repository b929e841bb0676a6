"""Seed all random generators and fix the threads, once at the start of a computation."""

import random

import numpy as np
import torch

from captioning.base.instructions import is_limited
from captioning.compute.products import use_openblas


def seed_everything(seed: int, threads: int) -> None:
    """Seed Python, NumPy and torch; fix the number of threads; with `instructions: avx2`, multiply with OpenBLAS."""
    torch.set_num_threads(threads)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # every GPU, too
    if is_limited():
        use_openblas()
