"""Counted bytes against those of loaded models, and the line that says what to set if they do not fit."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model

from benchmarks import true_shape
from captioning.adapters.lora import freeze_encoder, lora_config
from captioning.base.errors import UserError
from captioning.limits import memory
from captioning.limits.activations import meta_model
from captioning.limits.memory import Need, finetune_needs, require_memory, suggest_remedy
from captioning.limits.scst import scst_needs
from captioning.paligemma.model import encode_texts, load_frozen, load_quantised
from captioning.params.load import load_params
from tests.helpers.small_recipes import change, scst_recipe, variant_recipe

ROOT = Path(__file__).parents[2]
SHAPE = {"batch": 4, "training_rows": 8, "scst_images": 8, "decoding_batch": 4, "dequantise": True}
RECIPE = variant_recipe(accumulation=4, **SHAPE)
REFINED = scst_recipe(**SHAPE | {"batch": 8}, samples=2, maximum_tokens=12)
LORA, MACHINE = RECIPE.lora, RECIPE.machine


def loaded_bytes(model: Any) -> int:
    """Add up what a loaded model holds: parameters, and scales and tables of 4-bit weights."""
    tensors = list(model.parameters())
    for parameter in model.parameters():
        if state := getattr(parameter, "quant_state", None):
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    return sum({tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


@pytest.mark.parametrize("compute", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dequantise", [True, False])
def test_weight_bytes_are_those_of_the_loaded_model(checkpoint: Path, compute: str, dequantise: bool) -> None:
    model = load_frozen(checkpoint, compute, "cpu", dequantise)
    parts = memory.weight_bytes(meta_model(checkpoint, compute, "cpu"), dequantise)
    del parts["decoder in NF4" if dequantise else "one dequantised layer"]  # they exist only temporarily
    assert sum(parts.values()) == pytest.approx(loaded_bytes(model), rel=1e-3)


def test_adapter_bytes_are_those_of_a_real_step(checkpoint: Path) -> None:
    model = get_peft_model(load_quantised(checkpoint, "float32", "cpu"), lora_config(**dict(LORA)))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW(trainable)
    optimizer.step()
    moments = sum(state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq"))
    size = sum(parameter.nbytes for parameter in trainable)
    parts = memory.adapter_bytes(meta_model(checkpoint, "float32", "cpu", LORA).model, "adamw")
    assert parts == {"adapters and gradients": 2 * size, "optimizer (adamw)": moments}


def test_a_frozen_encoder_has_neither_gradients_nor_moments(checkpoint: Path) -> None:
    meta = meta_model(checkpoint, "float32", "cpu", LORA)
    total = memory.count_trainable(meta.model)
    freeze_encoder(meta.model)
    trainable = memory.count_trainable(meta.model)
    assert trainable < total
    assert memory.adapter_bytes(meta.model, "paged-adamw-8bit") == {
        "adapters and gradients": 4 * (total + trainable),
        "optimizer (paged-adamw-8bit)": 2 * trainable,
    }


def test_a_3b_step_in_gigabytes(tmp_path: Path) -> None:
    """Measured at the true shape on a CPU in bfloat16: 1.8 GiB per row of 295 tokens; NF4 decoder and others 2.9 GB."""
    true_shape.make_config(257_152).save_pretrained(tmp_path)
    meta = meta_model(tmp_path, "bfloat16", "cpu", LORA.model_copy(update={"rank": 16}))
    first, second = (meta.measure_training(rows, 5, 34).saved for rows in (1, 2))
    assert first / 2**30 == pytest.approx(1.71, abs=0.02)
    assert second == pytest.approx(2 * first, rel=0.001), "a step's bytes are linear in its rows"
    parts = memory.weight_bytes(meta, dequantise=False)
    assert parts["decoder in NF4"] / 1e9 == pytest.approx(1.98 * 0.5 * (1 + 1 / 32), abs=0.02)
    assert parts["embeddings, SigLIP and projector"] / 1e9 == pytest.approx(1.88, abs=0.02)


def make_need(items: int = 16, total_items: int = 0, unit: str = "rows") -> Need:
    """Return a need of 2 GB for any number, and 1 GB per item."""
    return Need("machine.training_rows", items, unit, {"weights": 2 * 10**9}, lambda n: n * 10**9, "cpu", total_items)


@pytest.mark.parametrize(
    ("free", "total_items", "most"), [(30e9, 0, 20), (30e9, 16, 16), (13e9, 16, 4), (13e9, 0, 7), (3e9, 16, 0)]
)
def test_the_largest_number_that_fits_divides_the_step(free: float, total_items: int, most: int) -> None:
    assert make_need(total_items=total_items).largest_fit(int(free)) == most
    if most:
        assert make_need(most).total_bytes <= free


def test_the_message_names_the_parts_and_the_remedy() -> None:
    require_memory([make_need(7)], MACHINE, int(13e9))
    with pytest.raises(UserError) as error:
        require_memory([make_need(total_items=16), make_need(64), make_need(2)], MACHINE, int(13e9))
    first, second = str(error.value).split("\n")
    assert first == (
        "machine.training_rows: 16 rows at a time need 24.1 GB (weights 2.0, 16 rows 16.0, margin 6.1), "
        "13.0 GB are free on cpu; the most that fit are 4: set the profile's machine.training_rows: 4, or auto"
    )
    assert "64 rows at a time" in second


@pytest.mark.parametrize(
    ("machine", "unit", "remedies"),
    [
        ({}, "rows", "machine.dequantise: false, which is slower, or machine.optimizer: paged-adamw-8bit, or use a"),
        ({"dequantise": False}, "rows", "machine.optimizer: paged-adamw-8bit, or use a larger device"),
        ({"optimizer": "paged-adamw-8bit"}, "rows", "machine.dequantise: false, which is slower, or use a larger"),
        ({}, "test images", "machine.dequantise: false, which is slower, or use a larger device"),
        ({"dequantise": False}, "test images", "a larger device is needed"),
    ],
)
def test_a_remedy_is_named_if_not_even_one_fits(machine: dict[str, Any], unit: str, remedies: str) -> None:
    assert remedies in suggest_remedy(make_need(unit=unit), int(1e9), MACHINE.model_copy(update=machine))


def test_a_micro_batch_divides_the_rows_of_a_process(checkpoint: Path) -> None:
    def rows(**changes: Any) -> tuple[int, int]:
        need = finetune_needs(checkpoint, change(RECIPE, **changes), 9, "cpu")[0]
        return need.items, need.total_items

    assert rows() == (8, 16)
    assert rows(training_rows=64) == (16, 16)
    assert rows(processes=4) == (4, 4)
    need = scst_needs(checkpoint, change(REFINED, processes=2), "cpu")[0]
    assert (need.key, need.items, need.total_items) == ("machine.scst_images", 4, 4)


def test_a_kl_penalty_needs_the_starts_adapter(checkpoint: Path) -> None:
    without, with_penalty = (scst_needs(checkpoint, change(REFINED, kl=kl), "cpu")[0].fixed for kl in (0.0, 0.1))
    assert sum(with_penalty.values()) > sum(without.values())


def test_lengths_are_the_tokenizers(processor: Any) -> None:
    captions = ["a red plane", "two blue boats docked neatly at the pier ."]
    batch = encode_texts(processor, ["caption en"] * 2, captions)
    longest = memory.longest_suffix(processor, captions)
    assert longest == int(batch["token_type_ids"].sum(dim=1).max())
    prompt = memory.prompt_length(processor, "caption en")
    assert batch["input_ids"].shape[1] == processor.image_seq_length + prompt + longest


def test_a_stage_that_cannot_fit_loads_no_weights(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages import generate

    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    params = load_params()
    prompt, tokens, machine = params.finetune.prompt, params.decoding.maximum_tokens, params.active.machine
    needed = memory.generation_needs(checkpoint, prompt, tokens, machine, "cpu", None)[0].total_bytes
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - 1)
    monkeypatch.setattr(generate, "load_frozen", lambda *_: pytest.fail("weights were loaded"))
    monkeypatch.setattr("sys.argv", ["generate", "--checkpoint", str(checkpoint), "--out", "captions.jsonl"])
    with pytest.raises(SystemExit):
        generate.main()
    line = capsys.readouterr().err
    assert line.startswith(f"error: machine.decoding_batch: {machine.decoding_batch} test images at a time need 0.")
    assert "0.5 GB are free on cpu; the most that fit are " in line and line.count("\n") == 1
