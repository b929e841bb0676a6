"""OpenBLAS's products equal torch's for each shape, stride, dtype and gradient, and replace them under `avx2`."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from captioning.compute.products import multiply, multiply_and_add

ROOT = Path(__file__).parents[2]
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def views(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return tensors with other strides: plain, transposed in memory, each second column of a wider one, expanded."""
    wide = torch.repeat_interleave(tensor, 2, dim=-1)[..., ::2]
    return [tensor, tensor.mT.contiguous().mT, wide, tensor[..., :1].expand_as(tensor)]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("n", "k", "m"), [(1, 1, 1), (1, 33, 5), (7, 128, 1), (48, 16, 40), (3, 0, 2), (0, 4, 2)])
@pytest.mark.parametrize("stack", [(), (5,), (0,)])
def test_a_product_equals_torchs(n: int, k: int, m: int, stack: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    for first in views(torch.randn(*stack, n, k, dtype=torch.float64)):
        for second in views(torch.randn(*stack, k, m, dtype=torch.float64)):
            exact = first.to(dtype).double() @ second.to(dtype).double()
            ours = multiply(first.to(dtype), second.to(dtype))
            assert ours.dtype == dtype and ours.is_contiguous()
            torch.testing.assert_close(ours.double(), exact, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype] * max(k, 1))


@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (0, 1), (0.5, 2), (1, -1)])
def test_a_sum_with_a_product_equals_torchs(beta: float, alpha: float) -> None:
    torch.manual_seed(0)
    summand, first, second = torch.randn(5), torch.randn(4, 8), torch.randn(8, 5)
    expected = torch.addmm(summand, first, second, beta=beta, alpha=alpha)
    torch.testing.assert_close(multiply_and_add(summand, first, second, beta=beta, alpha=alpha), expected)
    if beta == 0:
        ignored = torch.full((5,), torch.nan)
        assert multiply_and_add(ignored, first, second, beta=0, alpha=alpha).isfinite().all()


CODE = """
import os, sys
from captioning.base import instructions
os.environ.update(instructions.environment_variables({"threads": 1, "instructions": sys.argv[1]}))
import numpy as np, torch
from captioning.compute import products
from captioning.compute.seeds import seed_everything
seed_everything(1, 1)
calls = []
plain = np.matmul
np.matmul = lambda *arguments, **options: (calls.append(1), plain(*arguments, **options))[1]
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
def test_torchs_layers_use_them_under_avx2(instructions: str, calls: int) -> None:
    """They compute a forward pass, a weight's gradient, a stack, and a layer in inference, without warnings."""
    command = [sys.executable, "-c", CODE, instructions]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (int(process.stdout), process.stderr) == (calls, "")
