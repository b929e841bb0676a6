"""Table II's counts on the 3B's true shape; adapters that plain peft reads; what is frozen keeps its bytes."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

from captioning.adapters.lora import attach, count_parameters, freeze_encoder, load_adapter, lora_config, save
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


def low_rank(rank: int, shapes: list[tuple[int, int]]) -> int:
    """A is [rank, in], B is [out, rank]."""
    return sum(rank * (inputs + outputs) for inputs, outputs in shapes)


@pytest.fixture(scope="module")
def three_billion() -> PaliGemmaForConditionalGeneration:
    """PaliGemma-3B's shape without its memory."""
    text = dict(
        model_type="gemma", hidden_size=HIDDEN, num_hidden_layers=DECODER, num_attention_heads=8,
        num_key_value_heads=1, head_dim=HEADS, intermediate_size=FEED, vocab_size=257216,
    )  # fmt: skip
    vision = dict(
        model_type="siglip_vision_model", hidden_size=TOWER, num_hidden_layers=TOWER_LAYERS, num_attention_heads=16,
        intermediate_size=TOWER_FEED, patch_size=14, image_size=224, projection_dim=HIDDEN, vision_use_head=False,
    )  # fmt: skip
    config = PaliGemmaConfig(text_config=text, vision_config=vision, projection_dim=HIDDEN, image_token_index=257152)
    with torch.device("meta"):
        return PaliGemmaForConditionalGeneration(config)


def counts(model: Any, **lora: Any) -> dict[str, float]:
    adapted = attach(model, lora_config(**({"alpha": 8.0, "dropout": 0.0, "rslora": False} | lora)))
    counted = count_parameters(adapted)
    adapted.unload()
    return counted


TABLE_2 = {
    "full-adapter": (14_179_072, 0.48),
    "base-r4": (5_649_408, 0.19),
    "base-r8": (11_298_816, 0.38),
    "base-r16": (22_597_632, 0.76),
    "mix": (22_597_632, 0.76),
    "cococap": (22_597_632, 0.76),
    "rsvqa-lr": (22_597_632, 0.76),
}


@pytest.mark.parametrize("variant", TABLE_2)
def test_a_variants_counts_are_table_2s(three_billion: Any, variant: str) -> None:
    own = PARAMS.variants[variant].model_dump(exclude_none=True)
    lora = {key: own.get(key, value) for key, value in PARAMS.lora.model_dump().items()}
    counted = counts(three_billion, **lora)
    trainable, share = TABLE_2[variant]
    assert counted["trainable_parameters"] == trainable
    assert counted["all_parameters"] == BASE + trainable
    assert math.floor(counted["share"] * 100) / 100 == share  # the paper cuts, it does not round


def test_table_2_counts_the_encoders_attention_too() -> None:
    """By hand: seven layers a decoder layer, and q, k, v of every SigLIP layer, whose o is named out_proj."""
    for rank, expected in ((4, 5_649_408), (8, 11_298_816), (16, 22_597_632)):
        assert DECODER * low_rank(rank, SEVEN) + TOWER_LAYERS * low_rank(rank, [(TOWER, TOWER)] * 3) == expected
    tower = [(TOWER, TOWER)] * 4 + [(TOWER, TOWER_FEED), (TOWER_FEED, TOWER)]
    full = DECODER * low_rank(8, SEVEN) + TOWER_LAYERS * low_rank(8, tower) + low_rank(8, [(TOWER, HIDDEN)])
    assert full == 14_179_072


@pytest.mark.parametrize(
    ("targets", "shapes", "millions"),
    [("decoder", SEVEN, ("4.90", "9.81", "19.61")), ("decoder-attention", ATTENTION, ("0.92", "1.84", "3.69"))],
)
def test_the_decoder_alone_would_count_less(
    three_billion: Any, targets: str, shapes: list[tuple[int, int]], millions: tuple[str, ...]
) -> None:
    for rank, million in zip((4, 8, 16), millions, strict=True):
        counted = counts(three_billion, rank=rank, targets=targets)["trainable_parameters"]
        assert counted == DECODER * low_rank(rank, shapes)
        assert counted / 1e6 == pytest.approx(float(million), abs=0.006)


def adapted_layers(model: Any) -> set[str]:
    return {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A" in name}


@BOTH
def test_all_linear_is_decoder_tower_and_projector_without_the_head(adapted: Callable[..., Any]) -> None:
    layers = adapted_layers(adapted(targets="all-linear"))
    assert sum("language_model" in name for name in layers) == 7 * 4
    assert sum("vision_tower" in name for name in layers) == 6 * 4
    assert sum("multi_modal_projector" in name for name in layers) == 1
    assert len(layers) == 7 * 4 + 6 * 4 + 1
    assert not any("lm_head" in name or "embed" in name for name in layers)


@pytest.mark.parametrize(("targets", "expected"), [("table2", 40), ("decoder", 28), ("decoder-attention", 16)])
@BOTH
def test_targets_are_the_layers_they_name(adapted: Callable[..., Any], targets: str, expected: int) -> None:
    layers = adapted_layers(adapted(targets=targets))
    assert len(layers) == expected
    assert targets == "table2" or all("language_model" in name for name in layers)


def test_four_bit_weights_count_as_the_matrices_they_stand_for(adapted: Callable[..., Any], checkpoint: Path) -> None:
    plain = sum(p.numel() for p in PaliGemmaForConditionalGeneration.from_pretrained(checkpoint).parameters())
    counted = count_parameters(adapted())
    assert counted["all_parameters"] == plain + counted["trainable_parameters"]
    assert counted["share"] == pytest.approx(100 * counted["trainable_parameters"] / counted["all_parameters"])


@BOTH
def test_a_fresh_adapter_is_float32_and_changes_nothing(checkpoint: Path, batch: dict[str, Any]) -> None:
    base = load_quantised(checkpoint, "bfloat16", "cpu")
    pixels = batch | {"pixel_values": batch["pixel_values"].to(torch.bfloat16)}
    with torch.no_grad():
        before = base(**pixels).logits
        model = attach(base, lora_config(4, 8.0, 0.0, False, "table2"))
        assert torch.equal(model(**pixels).logits, before)
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    assert {value.dtype for value in trainable.values()} == {torch.float32}
    assert all("lora_" in name for name in trainable)
    assert all((value.abs().max() == 0) == ("lora_B" in name) for name, value in trainable.items())


@pytest.mark.parametrize("rslora", [False, True])
def test_the_update_is_equation_1(quantised: Any, rslora: bool) -> None:
    """W = W0 + (alpha / r) B A, or alpha / sqrt(r)."""
    model = attach(quantised, lora_config(4, 6.0, 0.0, rslora, "table2"))
    layer = model.get_base_model().model.vision_tower.encoder.layers[0].self_attn.q_proj
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    x = torch.randn(3, layer.in_features)
    update = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    weight = layer.base_layer.weight + 6.0 / (2 if rslora else 4) * update
    torch.testing.assert_close(layer(x), x @ weight.T + layer.base_layer.bias, rtol=1e-4, atol=1e-4)


def test_a_saved_adapter_is_plain_pefts(
    adapted: Callable[..., Any], checkpoint: Path, batch: dict[str, Any], tmp_path: Path
) -> None:
    model = adapted(strength=0.05).eval()
    save(model, tmp_path / "mix-1", "# card\n")
    assert {path.name for path in (tmp_path / "mix-1").iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    assert (tmp_path / "mix-1" / "README.md").read_text() == "# card\n"
    base = PaliGemmaForConditionalGeneration.from_pretrained(checkpoint)
    loaded = PeftModel.from_pretrained(base, tmp_path / "mix-1")
    dequantised = model.get_base_model().dequantize().state_dict()  # the file's weights are not NF4's
    unknown = loaded.get_base_model().load_state_dict(
        {name: value for name, value in dequantised.items() if "lora_" not in name}, strict=False
    )
    assert unknown.unexpected_keys == []
    assert all("lora_" in name for name in unknown.missing_keys)
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, model(**batch).logits, rtol=1e-4, atol=1e-4)


def test_our_own_loading_gives_the_same_logits(
    adapted: Callable[..., Any], checkpoint: Path, batch: dict[str, Any], tmp_path: Path
) -> None:
    model = adapted(strength=0.05).eval()
    save(model, tmp_path, "")
    again = load_adapter(load_quantised(checkpoint, "float32", "cpu"), tmp_path)
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert not again.training
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, model(**batch).logits)
    trainable = load_adapter(load_quantised(checkpoint, "float32", "cpu"), tmp_path, trainable=True)
    assert count_parameters(trainable) == count_parameters(model)


def test_a_pickled_adapter_is_refused(adapted: Callable[..., Any], quantised: Any, tmp_path: Path) -> None:
    """peft would unpickle it, whatever `use_safetensors` says."""
    save(adapted(), tmp_path, "")
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        load_adapter(quantised, tmp_path)


@BOTH
def test_freezing_the_encoder_leaves_the_decoders_adapters(adapted: Callable[..., Any]) -> None:
    model = adapted(targets="all-linear")
    freeze_encoder(model)
    learning = {name for name, value in model.named_parameters() if value.requires_grad}
    assert learning == {name for name, _ in model.named_parameters() if "lora_" in name and "language_model" in name}
    assert len(learning) == 2 * 7 * 4


def test_a_step_leaves_the_base_its_bytes(adapted: Callable[..., Any], batch: dict[str, Any]) -> None:
    model = adapted(targets="all-linear")
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    supervised_loss(model.get_base_model(), batch).backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
