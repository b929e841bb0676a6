"""Bytes counted on the meta device against those of the loaded model, by the same meter and by autograd's hooks."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.tutorial import Collator
from captioning.adapters.lora import freeze_encoder, lora_config, unwrap_adapter
from captioning.decoding import greedy_captions, suppressed_tokens
from captioning.limits.activations import DeviceAttention, MetaModel, Meter, meta_model
from captioning.limits.memory import longest_suffix, prompt_length
from captioning.limits.scst import measure_scst_step
from captioning.paligemma.model import load_frozen, prompt_tokens, supervised_loss
from captioning.params.sections import Lora
from captioning.scst.features import encode_images
from captioning.scst.loss import caption_log_probabilities
from captioning.scst.packing import prefill
from captioning.scst.rollout import rollout
from captioning.scst.sampling import Sampling
from captioning.training.trainer import attention_kernel
from tests.helpers.decoders import BOTH

PROMPT, CAPTION, CPU = "caption en", "a red plane parked near the terminal .", torch.device("cpu")
LORA = Lora(rank=4, alpha=8.0, dropout=0.0, rslora=False, targets="table2")


def load_model(checkpoint: Path, compute: str, dequantise: bool) -> Any:
    """Load the real model with an adapter, whose gradients exist already as in an accumulation."""
    torch.set_num_threads(1)
    model = get_peft_model(load_frozen(checkpoint, compute, "cpu", dequantise), lora_config(**dict(LORA)))
    MetaModel(model, "cpu").zero_gradients()
    return model


@pytest.fixture
def batch(processor: Any, pictures: list[bytes]) -> dict[str, torch.Tensor]:
    return Collator(processor)([{"image": image, "prompt": PROMPT, "caption": CAPTION} for image in pictures])


@pytest.fixture
def lengths(processor: Any) -> tuple[int, int]:
    """Tokens of the prompt and of the caption."""
    return prompt_length(processor, PROMPT), longest_suffix(processor, [CAPTION])


@pytest.mark.parametrize(
    ("compute", "dequantise"), [("float32", False), ("bfloat16", False), ("bfloat16", True), ("float16", True)]
)
@BOTH
def test_a_training_step_takes_the_counted_bytes(
    checkpoint: Path, batch: dict[str, torch.Tensor], lengths: tuple[int, int], compute: str, dequantise: bool
) -> None:
    model = load_model(checkpoint, compute, dequantise)
    with attention_kernel(CPU), Meter() as meter:
        loss = supervised_loss(unwrap_adapter(model), batch)
        saved = meter.live
        loss.backward()
    counts = meta_model(checkpoint, compute, "cpu", LORA).measure_training(4, *lengths)
    assert counts.saved == pytest.approx(saved, rel=0.03)
    assert counts.peak == pytest.approx(meter.peak, rel=0.05)


@BOTH
def test_saved_bytes_are_those_that_autograd_saves(
    checkpoint: Path, batch: dict[str, torch.Tensor], lengths: tuple[int, int]
) -> None:
    """torch's own hooks count them, without weights; at the end of a forward pass, graphs hold little else."""
    model = load_model(checkpoint, "float32", dequantise=True)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}  # the storages stay alive, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage
        return tensor

    with attention_kernel(CPU), saved_tensors_hooks(pack, lambda tensor: tensor):
        supervised_loss(unwrap_adapter(model), batch)
    counts = meta_model(checkpoint, "float32", "cpu", LORA).measure_training(4, *lengths)
    assert counts.saved == pytest.approx(sum(storage.nbytes() for storage in saved.values()), rel=0.05)


@BOTH
def test_captioning_takes_the_counted_bytes(
    checkpoint: Path, processor: Any, pictures: list[bytes], lengths: tuple[int, int]
) -> None:
    model = load_model(checkpoint, "bfloat16", dequantise=True)
    processor = copy.deepcopy(processor)
    processor.tokenizer.eos_token_id = 7  # so that no caption ends
    with Meter() as meter:
        list(greedy_captions(model, processor, pictures, PROMPT, 12, len(pictures)))
    counted = meta_model(checkpoint, "bfloat16", "cpu", LORA).measure_generation(4, lengths[0], 12)
    assert counted == pytest.approx(meter.peak, rel=0.1)


@pytest.mark.parametrize("greedy", [True, False])
@BOTH
def test_an_scst_step_takes_the_counted_bytes(
    checkpoint: Path, processor: Any, pictures: list[bytes], greedy: bool, tmp_path: Path
) -> None:
    """Captions run to the limit, since no token is `<eos>`."""
    model, tokens, samples = load_model(checkpoint, "bfloat16", dequantise=True), 12, 3
    freeze_encoder(model)
    MetaModel(model, "cpu").zero_gradients()
    base, sampling = unwrap_adapter(model), Sampling(tuple(suppressed_tokens(processor)))
    features = encode_images(base, processor, pictures, 4, tmp_path / "features")
    prompt, pad = prompt_tokens(processor, PROMPT), processor.tokenizer.pad_token_id
    with Meter() as meter, attention_kernel(CPU):
        prefix = prefill(base, prompt, features)
        captions = rollout(base, prefix, sampling, torch.rand(4, samples, tokens).double(), greedy, (-1, pad))
        log_p = caption_log_probabilities(base, prefix, captions[:, int(greedy) :], sampling, pad)
        log_p.sum().backward()
    meta = meta_model(checkpoint, "bfloat16", "cpu", LORA)
    freeze_encoder(meta.model)
    counted = measure_scst_step(meta, 4, prompt_length(processor, PROMPT), samples, greedy, tokens, sampling)
    assert counted == pytest.approx(meter.peak, rel=0.05)


def test_a_fused_kernel_saves_no_scores(checkpoint: Path) -> None:
    """Per row and layer it saves queries, keys, values, output and one float32 per row and head."""
    with DeviceAttention("cuda"), Meter() as meter:
        query, key, value = (torch.empty(1, 4, 100, 8, device="meta", requires_grad=True) for _ in range(3))
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert meter.live == 3 * 4 * query.numel() + 4 * out.numel() + 4 * 4 * 100
    out.sum().backward()
    assert query.grad is not None and query.grad.shape == query.shape
    fused, plain = (
        meta_model(checkpoint, "bfloat16", device, LORA).measure_training(2, 5, 9) for device in ("cuda", "cpu")
    )
    assert fused.saved < plain.saved


def test_the_meter_counts_live_tensors_and_a_view_once() -> None:
    with Meter() as meter:
        first = torch.empty(1000, device="meta")
        view = first[10:].view(-1, 10)
        assert meter.live == 4000
        second = view + 1
        assert meter.live == 4000 + 3960
        del first, view
        assert meter.live == 3960
    assert meter.peak == 7960
    del second
