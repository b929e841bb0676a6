"""Other adapter weights for a while: the start policy of a KL penalty, in the midst of a step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from captioning.adapters.lora import freeze_encoder, weights_of
from captioning.paligemma.model import supervised_loss
from captioning.training.states import trainable_weights
from tests.helpers.sampled_captions import gradients


def test_other_weights_for_a_while_leave_a_made_graph_alone(adapted: Callable[..., Any], batch: dict[str, Any]) -> None:
    """A loss made before, differentiated after: the gradients it would have had anyway."""
    model = adapted(strength=0.05).eval()
    freeze_encoder(model)
    start = trainable_weights(model)
    before = supervised_loss(model.get_base_model(), batch).item()
    for name, value in model.named_parameters():
        if name in start:
            value.data += 0.01 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1))
    expected = gradients(model, supervised_loss(model.get_base_model(), batch))
    loss = supervised_loss(model.get_base_model(), batch)
    with torch.no_grad(), weights_of(model, start):
        assert supervised_loss(model.get_base_model(), batch).item() == before
    assert loss.item() != before
    for name, value in gradients(model, loss).items():
        assert torch.equal(value, expected[name])


def test_weights_come_back_after_an_error(adapted: Callable[..., Any]) -> None:
    model = adapted(strength=0.05)
    own = trainable_weights(model)
    with pytest.raises(KeyError), weights_of(model, {name: torch.zeros_like(value) for name, value in own.items()}):
        assert not any(value.any() for value in trainable_weights(model).values())
        raise KeyError("x")
    assert all(torch.equal(value, own[name]) for name, value in trainable_weights(model).items())


def test_what_is_trained_is_copied_and_nothing_else(adapted: Callable[..., Any]) -> None:
    model = adapted(targets="all-linear")
    freeze_encoder(model)
    weights = trainable_weights(model)
    assert len(weights) == 2 * 7 * 4
    assert all("lora_" in name and "language_model" in name for name in weights)
    model.get_parameter(next(iter(weights))).data.zero_()
    assert next(iter(weights.values())).any()
