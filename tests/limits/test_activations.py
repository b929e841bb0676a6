"""Bytes counted on the meta device against the loaded model's own: the same meter there, and what autograd saves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from benchmarks.tutorial import Collator
from captioning.adapters.lora import attach_adapter, freeze_encoder, lora_config, unwrap_adapter
from captioning.decoding import forbidden_tokens, greedy_captions
from captioning.limits.activations import DeviceAttention, Meter, meta_model
from captioning.limits.memory import longest_suffix, prompt_length
from captioning.limits.scst import refining
from captioning.paligemma.model import load_frozen, prompt_tokens, supervised_loss
from captioning.scst.features import encode_all
from captioning.scst.loss import caption_log_probabilities
from captioning.scst.packing import prefill
from captioning.scst.rollout import rollout
from captioning.scst.sampling import Sampling
from captioning.training.trainer import attention_kernel
from tests.helpers.decoders import BOTH

PROMPT, CAPTION, CPU = "caption en", "a red plane parked near the terminal .", torch.device("cpu")
LORA: dict[str, Any] = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "rslora": False, "targets": "table2"}


def loaded(checkpoint: Path, compute: str, dequantise: bool) -> Any:
    """The real thing, gradients there as in accumulation."""
    torch.set_num_threads(1)
    return attach_adapter(load_frozen(checkpoint, compute, "cpu", dequantise), lora_config(**LORA))


def zero_gradients(model: Any) -> None:
    for one in model.parameters():
        one.grad = torch.zeros_like(one) if one.requires_grad else None


@pytest.mark.parametrize(("compute", "dequantise"), [("float32", False), ("bfloat16", False), ("bfloat16", True)])
@BOTH
def test_a_training_step_holds_what_was_counted(
    checkpoint: Path, processor: Any, pictures: list[bytes], compute: str, dequantise: bool
) -> None:
    batch = Collator(processor)([{"image": one, "prompt": PROMPT, "caption": CAPTION} for one in pictures])
    model = loaded(checkpoint, compute, dequantise)
    zero_gradients(model)
    with attention_kernel(CPU), Meter() as meter:
        loss = supervised_loss(unwrap_adapter(model), batch)
        kept = meter.live
        loss.backward()
    counted = meta_model(checkpoint, compute, "cpu", LORA).train(
        4, prompt_length(processor, PROMPT), longest_suffix(processor, [CAPTION])
    )
    assert counted.kept == pytest.approx(kept, rel=0.03)
    assert counted.peak == pytest.approx(meter.peak, rel=0.05)


@BOTH
def test_what_is_kept_is_what_autograd_saves(checkpoint: Path, processor: Any, pictures: list[bytes]) -> None:
    """Counted by torch's own hooks, weights left out; graphs hold little else at the end of a forward pass."""
    batch = Collator(processor)([{"image": one, "prompt": PROMPT, "caption": CAPTION} for one in pictures])
    model = loaded(checkpoint, "float32", dequantise=True)
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    saved: dict[int, int] = {}
    alive: list[torch.Tensor] = []  # an address is not used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            saved[address] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    with attention_kernel(CPU), saved_tensors_hooks(pack, lambda tensor: tensor):
        supervised_loss(unwrap_adapter(model), batch)
    counted = meta_model(checkpoint, "float32", "cpu", LORA).train(
        4, prompt_length(processor, PROMPT), longest_suffix(processor, [CAPTION])
    )
    assert counted.kept == pytest.approx(sum(saved.values()), rel=0.05)


@BOTH
def test_captioning_holds_what_was_counted(checkpoint: Path, processor: Any, pictures: list[bytes]) -> None:
    """A model that never ends its caption."""
    model = loaded(checkpoint, "bfloat16", dequantise=True)
    processor.tokenizer.eos_token_id, own = 7, processor.tokenizer.eos_token_id
    try:
        with Meter() as meter:
            list(greedy_captions(model, processor, pictures, PROMPT, 12, len(pictures)))
    finally:
        processor.tokenizer.eos_token_id = own
    counted = meta_model(checkpoint, "bfloat16", "cpu", LORA).generate(4, prompt_length(processor, PROMPT), 12)
    assert counted == pytest.approx(meter.peak, rel=0.1)


@pytest.mark.parametrize("greedy", [True, False])
@BOTH
def test_a_refining_step_holds_what_was_counted(
    checkpoint: Path, processor: Any, pictures: list[bytes], greedy: bool, tmp_path: Path
) -> None:
    """Captions as long as can be: no token is `<eos>`."""
    model, tokens, samples = loaded(checkpoint, "bfloat16", dequantise=True), 12, 3
    freeze_encoder(model)
    zero_gradients(model)
    base, sampling = unwrap_adapter(model), Sampling(tuple(forbidden_tokens(processor)))
    features = encode_all(base, processor, pictures, 4, tmp_path / "features")
    prompt, pad = prompt_tokens(processor, PROMPT), processor.tokenizer.pad_token_id
    with Meter() as meter, attention_kernel(CPU):
        prefix = prefill(base, prompt, features)
        drawn = rollout(base, prefix, sampling, samples, greedy, tokens, eos=-1, pad=pad)
        log_p = caption_log_probabilities(base, prefix, drawn[:, int(greedy) :], sampling, pad)
        log_p.sum().backward()
    meta = meta_model(checkpoint, "bfloat16", "cpu", LORA)
    freeze_encoder(meta.model)
    counted = refining(meta, 4, prompt_length(processor, PROMPT), samples, greedy, tokens, sampling)
    assert counted.peak == pytest.approx(meter.peak, rel=0.05)


def test_a_fused_kernel_keeps_no_scores(checkpoint: Path) -> None:
    """Per row and layer: queries, keys, values, output and one float32 a row and head; plain products keep scores."""
    with DeviceAttention("cuda"), Meter() as meter:
        query, key, value = (torch.empty(1, 4, 100, 8, device="meta", requires_grad=True) for _ in range(3))
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    assert meter.live == 3 * 4 * query.numel() + 4 * out.numel() + 4 * 4 * 100
    out.sum().backward()
    assert query.grad is not None and query.grad.shape == query.shape
    fused, plain = (meta_model(checkpoint, "bfloat16", device, LORA).train(2, 5, 9) for device in ("cuda", "cpu"))
    assert fused.kept < plain.kept


def test_the_meter_forgets_what_is_gone_and_counts_a_view_once() -> None:
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
