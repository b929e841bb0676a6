"""Weights spelt out are NF4's: the same logits, gradients and counts, and nothing more is trained."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from captioning.adapters.lora import attach_adapter, count_parameters, load_adapter, lora_config, save_adapter
from captioning.base.errors import UserError
from captioning.paligemma import model
from captioning.paligemma.model import is_4bit, load_frozen, load_quantised, supervised_loss
from tests.helpers.decoders import BOTH

Loader = Callable[[Path], Any]
LOADERS: dict[str, Loader] = {
    "nf4": lambda folder: load_quantised(folder, "float32", "cpu"),
    "spelt out": lambda folder: load_frozen(folder, "float32", "cpu", dequantise=True),
}


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@BOTH
def test_the_same_logits(checkpoint: Path, batch: dict[str, Any], compute: str) -> None:
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    inputs["pixel_values"] = inputs["pixel_values"].to(getattr(torch, compute))
    with torch.no_grad():
        nf4 = load_quantised(checkpoint, compute, "cpu")(**inputs).logits
        spelt_out = load_frozen(checkpoint, compute, "cpu", dequantise=True)(**inputs).logits
    assert torch.equal(nf4, spelt_out)


def test_an_adapter_of_one_is_the_others(checkpoint: Path, batch: dict[str, Any], tmp_path: Path) -> None:
    """Loss, gradients and counts of a saved adapter on both; only the adapter is trained."""
    torch.manual_seed(0)
    made = attach_adapter(LOADERS["nf4"](checkpoint), lora_config(4, 8.0, 0.0, False, "table2"))
    for name, value in made.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    save_adapter(made, tmp_path, "")
    found = []
    for load in LOADERS.values():
        model = load_adapter(load(checkpoint), tmp_path, trainable=True)
        loss = supervised_loss(model.get_base_model(), batch)
        loss.backward()
        trained = {name: value.grad for name, value in model.named_parameters() if value.requires_grad}
        assert all("lora_" in name for name in trained)
        found.append((loss.item(), count_parameters(model), trained))
    (loss, counts, ours), (other, others, theirs) = found
    assert loss == pytest.approx(other, rel=1e-6)
    assert counts == others
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


def test_where_there_is_no_room_it_says_so(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = psutil.virtual_memory()._replace(available=1_000_000)
    monkeypatch.setattr(model, "virtual_memory", lambda: full)
    with pytest.raises(UserError, match=r"take .* GB, 0\.0 GB are free on cpu; set .*machine\.dequantise: false"):
        load_frozen(checkpoint, "float32", "cpu", dequantise=True)


def test_it_is_quantised_where_that_is_wanted(checkpoint: Path) -> None:
    assert any(map(is_4bit, load_frozen(checkpoint, "float32", "cpu", dequantise=False).modules()))
    spelt_out = load_frozen(checkpoint, "float32", "cpu", dequantise=True)
    assert not any(map(is_4bit, spelt_out.modules()))
    assert not any(value.requires_grad for value in spelt_out.parameters())
