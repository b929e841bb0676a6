"""PaliGemma against the plain library path; each trap of transformers, peft and bitsandbytes is a test named for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from transformers import BitsAndBytesConfig, PaliGemmaForConditionalGeneration

from benchmarks.tutorial import Collator
from captioning.base.errors import UserError
from captioning.decoding import greedy_captions
from captioning.paligemma.model import (
    IGNORED,
    hidden_states,
    image_features,
    load_quantised,
    nf4_config,
    suffix_logits,
    supervised_loss,
)
from tests.helpers.decoders import BOTH

PROMPT = "caption en"


def plain(checkpoint: Path, **options: Any) -> PaliGemmaForConditionalGeneration:
    return PaliGemmaForConditionalGeneration.from_pretrained(checkpoint, **options)


def four_bit(model: Any) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, bnb.nn.Linear4bit)]


@BOTH
def test_four_bits_in_the_decoder_and_nowhere_else(quantised: Any) -> None:
    names = four_bit(quantised)
    assert len(names) == 7 * quantised.config.text_config.num_hidden_layers
    assert all(name.startswith("model.language_model.layers.") for name in names)
    assert {name.rsplit(".", 1)[1] for name in names} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    assert not any(parameter.requires_grad for parameter in quantised.parameters())
    assert not quantised.training


def test_a_bare_name_skips_nothing(checkpoint: Path) -> None:
    """Why `UNQUANTISED_MODULES` holds full paths: these names quantise the encoder too, and nothing says so."""
    config = BitsAndBytesConfig(
        load_in_4bit=True, llm_int8_skip_modules=["vision_tower", "multi_modal_projector", "lm_head"]
    )
    names = four_bit(plain(checkpoint, quantization_config=config))
    assert any("vision_tower" in name for name in names)
    assert any("multi_modal_projector" in name for name in names)


def test_another_number_of_four_bit_layers_is_refused(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioning.paligemma.model.UNQUANTISED_MODULES", ["vision_tower", "lm_head"])
    with pytest.raises(RuntimeError, match="expected the decoder's 28"):
        load_quantised(checkpoint, "float32", "cpu")


def test_nf4_is_nf4_with_double_quantisation() -> None:
    config = nf4_config("bfloat16")
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype == torch.bfloat16


def test_no_checkpoint_is_said_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint here; `dvc repro checkpoint`"):
        load_quantised(tmp_path, "float32", "cpu")


def gradients_after_an_evaluation(checkpoint: Path, batch: dict[str, Any], kernel: bool) -> dict[str, bool]:
    """In bfloat16: which adapters get a gradient in the training step that follows a pass without gradients."""
    from captioning.adapters.lora import attach_adapter, lora_config

    base = load_quantised(checkpoint, "bfloat16", "cpu")
    for module in base.modules():
        if kernel and isinstance(module, bnb.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = True
    model = attach_adapter(base, lora_config(4, 8.0, 0.0, False, "table2"))
    model.eval()
    with torch.no_grad():
        supervised_loss(base, batch)
    model.train()
    supervised_loss(base, batch).backward()
    return {
        name: parameter.grad is not None and bool(parameter.grad.abs().max() > 0)
        for name, parameter in model.named_parameters()
        if "lora_B" in name
    }


@BOTH
def test_an_evaluation_pass_leaves_every_adapter_its_gradient(checkpoint: Path, batch: dict[str, Any]) -> None:
    learns = gradients_after_an_evaluation(checkpoint, batch, kernel=False)
    assert len(learns) == 7 * 4 + 3 * 4  # decoder, and q, k, v of the tower
    assert [name for name, yes in learns.items() if not yes] == []


@pytest.mark.filterwarnings("ignore")
def test_with_the_packing_kernel_on_gradients_would_be_lost(checkpoint: Path, batch: dict[str, Any]) -> None:
    from bitsandbytes.nn.modules import has_avx512bf16

    if not has_avx512bf16():
        pytest.skip("this CPU has no AVX512-BF16; the kernel is never used")
    assert not all(gradients_after_an_evaluation(checkpoint, batch, kernel=True).values())


@BOTH
def test_features_passed_in_equal_pixels(quantised: Any, batch: dict[str, Any]) -> None:
    inputs = {key: value for key, value in batch.items() if key not in ("pixel_values", "labels")}
    with torch.no_grad():
        features = image_features(quantised, batch["pixel_values"])
        ours = quantised(**inputs, mm_encoder_outputs={"image": features}).logits
        other = quantised(**inputs, mm_encoder_outputs={"image": image_features(quantised, -batch["pixel_values"])})
        theirs = quantised(**inputs, pixel_values=batch["pixel_values"]).logits
        by_features = supervised_loss(quantised, inputs | {"labels": batch["labels"], "features": features})
    assert torch.equal(ours, theirs)
    assert not torch.allclose(other.logits, theirs, atol=1e-2)  # they are looked at
    assert by_features == supervised_loss(quantised, batch)


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(value.abs().max() > 0 for value in theirs.values())
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("targets", ["table2", "all-linear"])
@BOTH
def test_loss_and_gradients_equal_the_librarys(
    adapted: Callable[..., Any], batch: dict[str, Any], targets: str
) -> None:
    assert not batch["attention_mask"].all()  # captions of unequal length, padded on the right
    assert batch["attention_mask"][:, 0].all()
    model = adapted(strength=0.05, targets=targets)
    theirs = model(**batch).loss
    ours = supervised_loss(model.get_base_model(), batch)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    same(gradients(model, ours), gradients(model, theirs))


def test_accumulated_parts_equal_the_whole(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], captions: list[list[str]], batch: dict[str, Any]
) -> None:
    model = adapted(strength=0.05)
    rows = [
        {"image": image, "prompt": PROMPT, "caption": own[0]} for image, own in zip(pictures, captions, strict=True)
    ]
    tokens = int((batch["labels"] != IGNORED).sum())
    model.zero_grad()
    for part in (rows[:1], rows[1:]):
        supervised_loss(model.get_base_model(), Collator(processor)(part), tokens).backward()
    parts = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    same(parts, gradients(model, model(**batch).loss))


@BOTH
def test_the_head_sees_suffix_positions_alone(quantised: Any, batch: dict[str, Any]) -> None:
    with torch.no_grad():
        logits, targets, labelled = suffix_logits(quantised, hidden_states(quantised, batch), batch["labels"])
        whole = quantised(**{key: value for key, value in batch.items() if key != "labels"}).logits
    assert logits.shape == (int((batch["labels"] != IGNORED).sum()), quantised.config.text_config.vocab_size)
    assert targets.tolist() == [token for row in batch["labels"].tolist() for token in row if token != IGNORED]
    assert labelled.shape == (4, batch["labels"].shape[1] - 1)
    torch.testing.assert_close(logits, whole[:, :-1][labelled], rtol=0, atol=1e-4)


def test_dequantised_weights_give_the_same_logits(quantised: Any, batch: dict[str, Any]) -> None:
    with torch.no_grad():
        quantised_logits = quantised(**batch).logits
        dequantised = quantised.dequantize()
        assert four_bit(dequantised) == []
        torch.testing.assert_close(dequantised(**batch).logits, quantised_logits, rtol=0, atol=1e-5)


def test_four_bits_are_not_the_plain_weights(checkpoint: Path, quantised: Any, batch: dict[str, Any]) -> None:
    with torch.no_grad():
        assert not torch.allclose(quantised(**batch).logits, plain(checkpoint)(**batch).logits, atol=1e-3)


@BOTH
def test_gradient_checkpointing_stays_off_and_captions_come_from_evaluation_mode(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes]
) -> None:
    """Under training mode and checkpointing `generate` gives other tokens without an error."""
    model = adapted(strength=0.05, dropout=0.5)
    expected = list(greedy_captions(model.eval(), processor, pictures, PROMPT, 8, 4))
    model.train()
    assert not model.is_gradient_checkpointing
    assert not any(getattr(module, "gradient_checkpointing", False) for module in model.modules())
    assert list(greedy_captions(model, processor, pictures, PROMPT, 8, 4)) == expected
    assert not model.training
    assert not any(module.training for module in model.modules())


@BOTH
def test_embeddings_stay_tied_and_frozen_and_the_configuration_as_saved(
    checkpoint: Path, adapted: Callable[..., Any], batch: dict[str, Any]
) -> None:
    model = adapted(targets="all-linear")
    supervised_loss(model.get_base_model(), batch).backward()
    base = model.get_base_model()
    assert base.lm_head.weight is base.model.language_model.embed_tokens.weight
    assert not base.lm_head.weight.requires_grad
    assert base.lm_head.weight.grad is None
    saved = plain(checkpoint)
    assert base.config.text_config.use_cache is saved.config.text_config.use_cache is True
    assert torch.equal(base.lm_head.weight, saved.lm_head.weight)
