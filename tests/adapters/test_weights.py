"""Adapter weights can be swapped within a step, as the start policy of a KL penalty needs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from captioning.adapters.lora import freeze_encoder, swap_weights
from captioning.paligemma.model import supervised_loss
from captioning.training.states import trainable_weights
from tests.helpers.sampled_captions import compute_gradients


def test_swapped_weights_leave_earlier_graphs_valid(adapted: Callable[..., Any], batch: dict[str, Any]) -> None:
    """A loss from before the swap, differentiated after it, has the gradients of a model without a swap."""
    model = adapted(strength=0.05).eval()
    freeze_encoder(model)
    start = trainable_weights(model)
    start_loss = supervised_loss(model.get_base_model(), batch).item()
    for name, value in model.named_parameters():
        if name in start:
            value.data += 0.01 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    expected = compute_gradients(model, supervised_loss(model.get_base_model(), batch))
    loss = supervised_loss(model.get_base_model(), batch)
    with torch.no_grad(), swap_weights(model, start):
        assert supervised_loss(model.get_base_model(), batch).item() == start_loss
    assert loss.item() != start_loss
    for name, value in compute_gradients(model, loss).items():
        assert torch.equal(value, expected[name])


def test_weights_come_back_after_an_error(adapted: Callable[..., Any]) -> None:
    model = adapted(strength=0.05)
    weights = trainable_weights(model)
    zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
    with pytest.raises(KeyError), swap_weights(model, zeros):
        assert not any(value.any() for value in trainable_weights(model).values())
        raise KeyError("x")
    assert all(torch.equal(value, weights[name]) for name, value in trainable_weights(model).items())
