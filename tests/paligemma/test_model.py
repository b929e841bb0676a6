"""PaliGemma equals the plain library path; a test for each trap of transformers, peft and bitsandbytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import PaliGemmaForConditionalGeneration

from benchmarks.tutorial import Collator
from captioning.adapters.lora import lora_config
from captioning.base.errors import UserError
from captioning.decoding import greedy_captions
from captioning.paligemma.model import (
    IGNORED,
    image_features,
    is_4bit,
    load_quantised,
    supervised_loss,
)
from tests.helpers.decoders import BOTH

PROMPT = "caption en"
Gradients = dict[str, torch.Tensor]


@BOTH
def test_decoder_alone_is_in_nf4(quantised: Any) -> None:
    layers = [name for name, module in quantised.named_modules() if is_4bit(module)]
    config = quantised.config.quantization_config
    linears = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert len(layers) == 7 * quantised.config.text_config.num_hidden_layers
    assert all(name.startswith("model.language_model.layers.") for name in layers)
    assert {name.rsplit(".", 1)[1] for name in layers} == linears
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert not any(parameter.requires_grad for parameter in quantised.parameters())
    assert not quantised.training


def test_another_number_of_4bit_layers_is_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library ignores bare names and quantises these modules, too."""
    monkeypatch.setattr("captioning.paligemma.model.UNQUANTISED_MODULES", ["vision_tower", "lm_head"])
    with pytest.raises(RuntimeError, match="expected the decoder's 28"):
        load_quantised(checkpoint, "float32", "cpu")


def test_missing_checkpoint_is_reported_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint here; `dvc repro checkpoint`"):
        load_quantised(tmp_path, "float32", "cpu")


@BOTH
def test_every_adapter_has_its_gradient_after_an_evaluation(checkpoint: Path, batch: dict[str, Any]) -> None:
    """In bfloat16: on some CPUs, bitsandbytes would repack the layers for its kernel."""
    base = load_quantised(checkpoint, "bfloat16", "cpu")
    model = get_peft_model(base, lora_config(4, 8.0, 0.0, False, "table2")).eval()
    with torch.no_grad():
        supervised_loss(base, batch)
    model.train()
    supervised_loss(base, batch).backward()
    gradients = {name: value.grad for name, value in model.named_parameters() if "lora_B" in name}
    assert len(gradients) == 7 * 4 + 3 * 4  # decoder, and q, k, v of the tower
    assert [name for name, gradient in gradients.items() if gradient is None or not gradient.any()] == []


@BOTH
def test_features_replace_pixels(quantised: Any, batch: dict[str, Any]) -> None:
    inputs = {key: value for key, value in batch.items() if key not in ("pixel_values", "labels")}
    with torch.no_grad():
        features = image_features(quantised, batch["pixel_values"])
        logits = quantised(**inputs, mm_encoder_outputs={"image": features}).logits
        other = quantised(**inputs, mm_encoder_outputs={"image": image_features(quantised, -batch["pixel_values"])})
        expected = quantised(**inputs, pixel_values=batch["pixel_values"]).logits
        loss = supervised_loss(quantised, inputs | {"labels": batch["labels"], "features": features})
    assert torch.equal(logits, expected)
    assert not torch.allclose(other.logits, expected, atol=1e-2)  # the features have an effect
    assert loss == supervised_loss(quantised, batch)


def backpropagate(model: Any, *losses: torch.Tensor) -> Gradients:
    """Return the gradients of the sum of `losses`."""
    model.zero_grad()
    for loss in losses:
        loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def assert_close(gradients: Gradients, expected: Gradients) -> None:
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        assert value.any(), name
        torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("targets", ["table2", "all-linear"])
@BOTH
def test_loss_and_gradients_equal_the_librarys(
    adapted: Callable[..., Any], batch: dict[str, Any], targets: str
) -> None:
    assert not batch["attention_mask"].all()  # captions of unequal length, padded on the right
    assert batch["attention_mask"][:, 0].all()
    model = adapted(strength=0.05, targets=targets)
    expected = model(**batch).loss
    loss = supervised_loss(model.get_base_model(), batch)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    assert_close(backpropagate(model, loss), backpropagate(model, expected))


def test_accumulated_micro_batches_equal_the_step(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], captions: list[list[str]], batch: dict[str, Any]
) -> None:
    model = adapted(strength=0.05)
    pairs = zip(pictures, captions, strict=True)
    rows = [{"image": image, "prompt": PROMPT, "caption": texts[0]} for image, texts in pairs]
    tokens = int((batch["labels"] != IGNORED).sum())
    micro_batches = [Collator(processor)(part) for part in (rows[:1], rows[1:])]
    losses = [supervised_loss(model.get_base_model(), micro_batch, tokens) for micro_batch in micro_batches]
    assert_close(backpropagate(model, *losses), backpropagate(model, model(**batch).loss))


@BOTH
def test_head_sees_suffix_positions_only(quantised: Any, batch: dict[str, Any]) -> None:
    seen: list[torch.Tensor] = []
    hook = quantised.lm_head.register_forward_hook(lambda _, __, logits: seen.append(logits))
    with torch.no_grad():
        supervised_loss(quantised, batch)
        hook.remove()
        expected = quantised(**{key: value for key, value in batch.items() if key != "labels"}).logits
    labelled = batch["labels"][:, 1:] != IGNORED
    assert seen[0].shape == (int((batch["labels"] != IGNORED).sum()), quantised.config.text_config.vocab_size)
    cap = getattr(quantised.config.text_config, "final_logit_softcapping", None)  # Gemma 2 bounds what the head gives
    logits = cap * torch.tanh(seen[0].float() / cap) if cap else seen[0].float()
    torch.testing.assert_close(logits, expected[:, :-1][labelled], rtol=0, atol=1e-4)


@BOTH
def test_captions_come_from_evaluation_mode_without_gradient_checkpointing(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes]
) -> None:
    """In training mode, or with checkpointing, `generate` silently returns other tokens."""
    model = adapted(strength=0.05, dropout=0.5)
    expected = list(greedy_captions(model.eval(), processor, pictures, PROMPT, 8, 4))
    model.train()
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert list(greedy_captions(model, processor, pictures, PROMPT, 8, 4)) == expected
    assert not any(module.training for module in model.modules())


@BOTH
def test_embeddings_stay_tied_and_frozen(checkpoint: Path, adapted: Callable[..., Any], batch: dict[str, Any]) -> None:
    model = adapted(targets="all-linear")
    supervised_loss(model.get_base_model(), batch).backward()
    base, plain = model.get_base_model(), PaliGemmaForConditionalGeneration.from_pretrained(checkpoint)
    assert base.lm_head.weight is base.model.language_model.embed_tokens.weight
    assert not base.lm_head.weight.requires_grad
    assert base.lm_head.weight.grad is None
    assert torch.equal(base.lm_head.weight, plain.lm_head.weight)
    assert base.config.text_config.use_cache is plain.config.text_config.use_cache is True
