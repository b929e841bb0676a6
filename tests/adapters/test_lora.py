"""Table II's counts at the true shape of the 3B, adapters that plain peft reads, and frozen weights."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import PaliGemmaForConditionalGeneration

from benchmarks import true_shape
from captioning.adapters.lora import (
    count_parameters,
    freeze_encoder,
    load_adapter,
    lora_config,
    save_adapter,
)
from captioning.base.errors import UserError
from captioning.paligemma.model import load_quantised, supervised_loss
from captioning.params.load import load_params
from tests.helpers.decoders import BOTH

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
HIDDEN, HEADS, FEED, DECODER = 2048, 256, 16384, 18  # Gemma 2B: width, one key-value head's width, feed-forward, layers
TOWER, TOWER_FEED, TOWER_LAYERS = 1152, 4304, 27  # SigLIP So400m
ATTENTION = [(HIDDEN, HIDDEN), (HIDDEN, HEADS), (HIDDEN, HEADS), (HIDDEN, HIDDEN)]  # q, k, v, o
SEVEN = [*ATTENTION, (HIDDEN, FEED), (HIDDEN, FEED), (FEED, HIDDEN)]
BASE = 2_923_466_480  # parameters of PaliGemma-3B
TABLE_2 = {
    "full-adapter": (14_179_072, 0.48),
    "base-r4": (5_649_408, 0.19),
    "base-r8": (11_298_816, 0.38),
    "base-r16": (22_597_632, 0.76),
    "mix": (22_597_632, 0.76),
    "cococap": (22_597_632, 0.76),
    "rsvqa-lr": (22_597_632, 0.76),
}


@pytest.fixture(scope="module")
def three_billion() -> PaliGemmaForConditionalGeneration:
    """PaliGemma-3B's shape without its memory."""
    with torch.device("meta"):
        return PaliGemmaForConditionalGeneration(true_shape.make_config(257_152))


def count_low_rank(rank: int, shapes: list[tuple[int, int]]) -> int:
    """Count the parameters of A [rank, in] and B [out, rank] for layers of these shapes."""
    return sum(rank * (inputs + outputs) for inputs, outputs in shapes)


def count_adapter(model: Any, **lora: Any) -> dict[str, float]:
    adapted = get_peft_model(model, lora_config(**({"alpha": 8.0, "dropout": 0.0, "rslora": False} | lora)))
    counts = count_parameters(adapted)
    adapted.unload()
    return counts


@pytest.mark.parametrize("variant", TABLE_2)
def test_a_variant_has_table_2s_counts(three_billion: Any, variant: str) -> None:
    overrides = PARAMS.variants[variant].model_dump(exclude_none=True)
    lora = {key: overrides.get(key, value) for key, value in PARAMS.lora.model_dump().items()}
    counts = count_adapter(three_billion, **lora)
    trainable, share = TABLE_2[variant]
    assert counts["trainable_parameters"] == trainable
    assert counts["all_parameters"] == BASE + trainable
    assert math.floor(counts["share"] * 100) / 100 == share  # the paper cuts, it does not round


def test_table_2_counts_the_encoders_attention() -> None:
    """By hand: seven linear layers per decoder layer, and q, k, v of each SigLIP layer, whose o is named out_proj."""
    for rank, expected in ((4, 5_649_408), (8, 11_298_816), (16, 22_597_632)):
        encoder = TOWER_LAYERS * count_low_rank(rank, [(TOWER, TOWER)] * 3)
        assert DECODER * count_low_rank(rank, SEVEN) + encoder == expected
    tower = [(TOWER, TOWER)] * 4 + [(TOWER, TOWER_FEED), (TOWER_FEED, TOWER)]
    all_linear = [*SEVEN * DECODER, *tower * TOWER_LAYERS, (TOWER, HIDDEN)]
    assert count_low_rank(8, all_linear) == 14_179_072


@pytest.mark.parametrize(
    ("targets", "shapes", "millions"),
    [("decoder", SEVEN, ("4.90", "9.81", "19.61")), ("decoder-attention", ATTENTION, ("0.92", "1.84", "3.69"))],
)
def test_the_decoder_alone_counts_less(
    three_billion: Any, targets: str, shapes: list[tuple[int, int]], millions: tuple[str, ...]
) -> None:
    for rank, million in zip((4, 8, 16), millions, strict=True):
        count = count_adapter(three_billion, rank=rank, targets=targets)["trainable_parameters"]
        assert count == DECODER * count_low_rank(rank, shapes)
        assert count / 1e6 == pytest.approx(float(million), abs=0.006)


@pytest.mark.parametrize(
    ("targets", "counts"),
    [("table2", [28, 12, 0]), ("decoder", [28, 0, 0]), ("decoder-attention", [16, 0, 0]), ("all-linear", [28, 24, 1])],
)
@BOTH
def test_targets_name_their_layers(adapted: Callable[..., Any], targets: str, counts: list[int]) -> None:
    layers = [name for name, _ in adapted(targets=targets).named_parameters() if ".lora_A" in name]
    parts = ("language_model", "vision_tower", "multi_modal_projector")
    assert [sum(part in name for name in layers) for part in parts] == counts
    assert len(layers) == sum(counts)


def test_four_bit_weights_count_as_full_matrices(adapted: Callable[..., Any], checkpoint: Path) -> None:
    plain = sum(p.numel() for p in PaliGemmaForConditionalGeneration.from_pretrained(checkpoint).parameters())
    counts = count_parameters(adapted())
    assert counts["all_parameters"] == plain + counts["trainable_parameters"]
    assert counts["share"] == pytest.approx(100 * counts["trainable_parameters"] / counts["all_parameters"])


@BOTH
def test_a_new_adapter_is_float32_and_changes_nothing(checkpoint: Path, batch: dict[str, Any]) -> None:
    base = load_quantised(checkpoint, "bfloat16", "cpu")
    pixels = batch | {"pixel_values": batch["pixel_values"].to(torch.bfloat16)}
    with torch.no_grad():
        before = base(**pixels).logits
        model = get_peft_model(base, lora_config(4, 8.0, 0.0, False, "table2"))
        assert torch.equal(model(**pixels).logits, before)
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert {value.dtype for value in trainable.values()} == {torch.float32}
    assert all("lora_" in name for name in trainable)
    assert all((value.abs().max() == 0) == ("lora_B" in name) for name, value in trainable.items())


@pytest.mark.parametrize("rslora", [False, True])
def test_the_update_is_equation_1(quantised: Any, rslora: bool) -> None:
    """W = W0 + (alpha / r) B A, or alpha / sqrt(r)."""
    model = get_peft_model(quantised, lora_config(4, 6.0, 0.0, rslora, "table2"))
    layer = model.get_base_model().model.vision_tower.encoder.layers[0].self_attn.q_proj
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(3, layer.in_features)
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    weight = layer.base_layer.weight + 6.0 / (2 if rslora else 4) * update
    torch.testing.assert_close(layer(x), x @ weight.T + layer.base_layer.bias, rtol=1e-4, atol=1e-4)


def test_plain_peft_reads_a_saved_adapter(
    adapted: Callable[..., Any], checkpoint: Path, batch: dict[str, Any], tmp_path: Path
) -> None:
    model = adapted(strength=0.05).eval()
    save_adapter(model, tmp_path / "mix-1", "# card\n")
    names = {path.name for path in (tmp_path / "mix-1").iterdir()}
    assert names == {"README.md", "adapter_config.json", "adapter_model.safetensors"}
    assert (tmp_path / "mix-1/README.md").read_text() == "# card\n"
    base = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint)
    loaded = PeftModel.from_pretrained(base, tmp_path / "mix-1")
    dequantised = model.get_base_model().dequantize().state_dict()  # the file's weights are not NF4's
    weights = {name: value for name, value in dequantised.items() if "lora_" not in name}
    keys = loaded.get_base_model().load_state_dict(weights, strict=False)
    assert keys.unexpected_keys == []
    assert all("lora_" in name for name in keys.missing_keys)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-4)


def test_a_loaded_adapter_gives_the_same_logits(
    adapted: Callable[..., Any], checkpoint: Path, batch: dict[str, Any], tmp_path: Path
) -> None:
    model = adapted(strength=0.05).eval()
    save_adapter(model, tmp_path, "")
    loaded = load_adapter(load_quantised(checkpoint, "float32", "cpu"), tmp_path)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model(**batch).logits)
    trainable = load_adapter(load_quantised(checkpoint, "float32", "cpu"), tmp_path, trainable=True)
    assert count_parameters(trainable) == count_parameters(model)


def test_a_pickled_adapter_is_refused(adapted: Callable[..., Any], quantised: Any, tmp_path: Path) -> None:
    """peft would unpickle it, whatever `use_safetensors` says."""
    save_adapter(adapted(), tmp_path, "")
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        load_adapter(quantised, tmp_path)


@BOTH
def test_a_frozen_encoder_leaves_the_decoders_adapters_trainable(adapted: Callable[..., Any]) -> None:
    model = adapted(targets="all-linear")
    freeze_encoder(model)
    trainable = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trainable == [name for name, _ in model.named_parameters() if "lora_" in name and "language_model" in name]
    assert len(trainable) == 2 * 7 * 4


def test_a_step_changes_only_the_adapter(adapted: Callable[..., Any], batch: dict[str, Any]) -> None:
    model = adapted(targets="all-linear")
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    supervised_loss(model.get_base_model(), batch).backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
