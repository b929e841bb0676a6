"""Products by OpenBLAS are torch's, for every shape, stride, dtype and gradient; they replace torch's where asked."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from captioning.compute.products import multiply, multiply_and_add

ROOT = Path(__file__).parents[2]
LOOSE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def views(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The same values with other strides: as they are, transposed in memory, every second of a wider one, expanded."""
    wide = torch.repeat_interleave(tensor, 2, dim=-1)[..., ::2]
    return [tensor, tensor.mT.contiguous().mT, wide, tensor[..., :1].expand_as(tensor)]


@pytest.mark.parametrize("dtype", LOOSE)
@pytest.mark.parametrize(("n", "k", "m"), [(1, 1, 1), (1, 33, 5), (7, 128, 1), (48, 16, 40), (3, 0, 2), (0, 4, 2)])
@pytest.mark.parametrize("stack", [(), (5,), (0,)])
def test_a_product_is_torchs(n: int, k: int, m: int, stack: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for first in views(torch.randn(*stack, n, k, dtype=torch.float64)):
        for second in views(torch.randn(*stack, k, m, dtype=torch.float64)):
            exact = first.to(dtype).double() @ second.to(dtype).double()
            ours = multiply(first.to(dtype), second.to(dtype))
            assert ours.dtype == dtype and ours.is_contiguous()
            torch.testing.assert_close(ours.double(), exact, rtol=LOOSE[dtype], atol=LOOSE[dtype] * max(k, 1))


@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (0, 1), (0.5, 2), (1, -1)])
def test_a_sum_with_a_product_is_torchs(beta: float, alpha: float) -> None:
    torch.manual_seed(0)
    summand, first, second = torch.randn(5), torch.randn(4, 8), torch.randn(8, 5)
    theirs = torch.addmm(summand, first, second, beta=beta, alpha=alpha)
    torch.testing.assert_close(multiply_and_add(summand, first, second, beta=beta, alpha=alpha), theirs)
    unset = torch.full((5,), torch.nan)
    if beta == 0:
        assert multiply_and_add(unset, first, second, beta=0, alpha=alpha).isfinite().all(), (
            "what beta = 0 leaves out was read"
        )


REPLACED = """
import os, sys
from captioning.compute import instructions
os.environ.update(instructions.environment_variables({"threads": 1, "instructions": sys.argv[1]}))
import numpy as np, torch
from captioning.compute import products
from captioning.compute.seeds import seed_everything
seed_everything(1, 1)
calls = []
plain = np.matmul
np.matmul = lambda *given, **options: (calls.append(1), plain(*given, **options))[1]
layer = torch.nn.Linear(8, 4)
layer(torch.randn(3, 8)).sum().backward()
torch.randn(2, 3, 4) @ torch.randn(2, 4, 5)
with torch.inference_mode():
    layer(torch.randn(3, 8))
gradient = layer.weight.grad
assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0
print(len(calls))
"""


@pytest.mark.parametrize(("instructions", "calls"), [("avx2", 4), ("native", 0)])
def test_torchs_own_layers_take_them_under_avx2(instructions: str, calls: int) -> None:
    """Forward, the weight's gradient, a stack, and a layer in inference; no warning is printed."""
    command = [sys.executable, "-c", REPLACED, instructions]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (int(done.stdout), done.stderr) == (calls, "")
