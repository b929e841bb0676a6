"""Matrix products of torch's CPU tensors by NumPy's OpenBLAS: the same bytes on every x86-64 processor, at full speed.

torch multiplies with MKL, which takes other kernels on AMD's processors than on Intel's, whatever it is asked for but
`MKL_CBWR=COMPATIBLE`, and that needs 2.5 times as long. OpenBLAS takes the kernels that `OPENBLAS_CORETYPE` names, on
any processor with these instructions.

1. Replaced are the four operations that a model is made of: mm, bmm, addmm and baddbmm. Autograd, above them, is
   untouched. Any other product stays MKL's, in its compatible mode: slower, and the same bytes as well.
2. Products of half precision are taken in float32 and rounded once: AVX2 has no instruction for them.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.library import Library

HALVES = (torch.bfloat16, torch.float16)
replaced: list[Library] = []  # what torch forgets when it is released


def use_openblas() -> None:
    """Replace torch's matrix products on the CPU, for the rest of the process."""
    if replaced:
        return
    replaced.append(Library("aten", "IMPL", "CPU"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")  # that it is replaced
        for name, function in (("mm", product), ("bmm", product), ("addmm", _add), ("baddbmm", _add)):
            replaced[0].impl(name, function, allow_override=True)


def product(first: Tensor, second: Tensor) -> Tensor:
    """`first @ second`: two matrices, `[n, k]` and `[k, m]`, or two stacks of as many."""
    if first.dtype in HALVES:
        return product(first.float(), second.float()).to(first.dtype)
    shape = (*first.shape[:-1], second.shape[-1])
    result = torch.empty(shape, dtype=first.dtype)  # torch aligns it as it does its other tensors
    np.matmul(_array(first), _array(second), out=result.numpy())
    return result


def _add(summand: Tensor, first: Tensor, second: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    result = product(first, second)
    if alpha != 1:
        result.mul_(alpha)
    return result if beta == 0 else result.add_(summand, alpha=beta)


def _array(tensor: Tensor) -> np.ndarray:
    """The matrices of `tensor`, copied if BLAS could not read them where they are."""
    if tensor.stride(-1) != 1 and tensor.stride(-2) != 1:
        tensor = tensor.contiguous()
    return tensor.detach().numpy()
