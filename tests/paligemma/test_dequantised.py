"""Dequantised weights are NF4's: same logits, same gradients and counts, only the adapter is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from captioning.adapters.lora import count_parameters, load_adapter, save_adapter
from captioning.base.errors import UserError
from captioning.paligemma import model
from captioning.paligemma.model import is_4bit, load_frozen, supervised_loss
from tests.helpers.decoders import BOTH


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@BOTH
def test_logits_are_equal(checkpoint: Path, batch: dict[str, Any], compute: str) -> None:
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    inputs["pixel_values"] = inputs["pixel_values"].to(getattr(torch, compute))
    quantised, dequantised = (load_frozen(checkpoint, compute, "cpu", dequantise) for dequantise in (False, True))
    assert any(map(is_4bit, quantised.modules()))
    assert not any(map(is_4bit, dequantised.modules()))
    assert not any(value.requires_grad for value in dequantised.parameters())
    with torch.no_grad():
        assert torch.equal(quantised(**inputs).logits, dequantised(**inputs).logits)


def test_adapter_trains_alike_on_both(
    checkpoint: Path, adapted: Callable[..., Any], batch: dict[str, Any], tmp_path: Path
) -> None:
    save_adapter(adapted(strength=0.05), tmp_path, "")
    results = []
    for dequantise in (False, True):
        adapted_model = load_adapter(load_frozen(checkpoint, "float32", "cpu", dequantise), tmp_path, trainable=True)
        loss = supervised_loss(adapted_model.get_base_model(), batch)
        loss.backward()
        trained = {name: value.grad for name, value in adapted_model.named_parameters() if value.requires_grad}
        assert all("lora_" in name for name in trained)
        results.append((loss.item(), count_parameters(adapted_model), trained))
    (loss, counts, gradients), (expected_loss, expected_counts, expected) = results
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert counts == expected_counts
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_too_little_memory_is_reported(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = psutil.virtual_memory()._replace(available=1_000_000)
    monkeypatch.setattr(model, "virtual_memory", lambda: full)
    with pytest.raises(UserError, match=r"take .* GB, 0\.0 GB are free on cpu; set .*machine\.dequantise: false"):
        load_frozen(checkpoint, "float32", "cpu", dequantise=True)
