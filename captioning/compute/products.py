"""Multiply torch's CPU matrices with NumPy's OpenBLAS: the same bytes on every x86-64 processor, at full speed.

torch multiplies with MKL, which uses different kernels on AMD and on Intel processors unless `MKL_CBWR=COMPATIBLE`, and
that mode takes 2.5 times as long. OpenBLAS uses the kernels that `OPENBLAS_CORETYPE` names, on any processor that has
the instructions.

1. This module replaces the four operations that models consist of: mm, bmm, addmm and baddbmm. Autograd, one level
   above, is unchanged. Any other product stays with MKL in its compatible mode: slower, with the same bytes.
2. Half-precision products are computed in float32 and rounded once, because AVX2 has no half-precision instructions.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.library import Library

HALVES = (torch.bfloat16, torch.float16)
replaced_operations: list[Library] = []  # torch restores an operation when its library is released


def use_openblas() -> None:
    """Replace torch's matrix products on the CPU for the rest of the process."""
    if replaced_operations:
        return
    replaced_operations.append(Library("aten", "IMPL", "CPU"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Warning only once for all operators")
        for name, function in OPERATIONS.items():
            replaced_operations[0].impl(name, function, allow_override=True)


def multiply(first: Tensor, second: Tensor) -> Tensor:
    """Return `first @ second` for matrices `[n, k]` and `[k, m]`, or for two stacks of matrices."""
    if first.dtype in HALVES:
        return multiply(first.float(), second.float()).to(first.dtype)
    shape = (*first.shape[:-1], second.shape[-1])
    result = torch.empty(shape, dtype=first.dtype)  # aligned like torch's other tensors
    np.matmul(as_array(first), as_array(second), out=result.numpy())
    return result


def multiply_and_add(summand: Tensor, first: Tensor, second: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    result = multiply(first, second)
    if alpha != 1:
        result.mul_(alpha)
    return result if beta == 0 else result.add_(summand, alpha=beta)


OPERATIONS = {"mm": multiply, "bmm": multiply, "addmm": multiply_and_add, "baddbmm": multiply_and_add}


def as_array(tensor: Tensor) -> np.ndarray:
    """Return the matrices of `tensor`, copied only if BLAS cannot read their strides."""
    if tensor.stride(-1) != 1 and tensor.stride(-2) != 1:
        tensor = tensor.contiguous()
    return tensor.detach().numpy()
