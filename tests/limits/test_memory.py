"""What a stage says it needs: weights against the loaded ones, and one line with what to set where it does not fit."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import true_shape
from captioning.adapters.lora import attach_adapter, count_parameters, freeze_encoder, lora_config
from captioning.base.errors import UserError
from captioning.limits import memory
from captioning.limits.activations import MetaModel, meta_model
from captioning.limits.memory import Need, finetune_needs, remedy, require, told
from captioning.limits.scst import scst_needs
from captioning.paligemma.model import load_frozen, load_quantised, tokenise
from captioning.params.load import load_params
from tests.helpers.small_recipes import change, scst_recipe, variant_recipe

ROOT = Path(__file__).parents[2]
SHAPE = {"batch": 4, "training_rows": 8, "decoding_batch": 4, "dequantise": True}
RECIPE = variant_recipe(accumulation=4, **SHAPE)
REFINED = scst_recipe(**SHAPE | {"batch": 8}, samples=2, maximum_tokens=12)
LORA, MACHINE = RECIPE.lora, RECIPE.machine


def held(model: Any) -> int:
    """Bytes of all that a loaded model holds: parameters, scales and tables of 4-bit weights."""
    tensors = list(model.parameters())
    for one in model.parameters():
        if state := getattr(one, "quant_state", None):
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
    return sum({one.data_ptr(): one.untyped_storage().nbytes() for one in tensors}.values())


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
@pytest.mark.parametrize("dequantise", [True, False])
def test_weights_are_those_of_the_loaded_model(checkpoint: Path, compute: str, dequantise: bool) -> None:
    model = load_frozen(checkpoint, compute, "cpu", dequantise)
    parts = memory.weights(meta_model(checkpoint, compute, "cpu"), dequantise)
    del parts["decoder in NF4" if dequantise else "one layer spelt out"]  # beside the others for a while
    assert sum(parts.values()) == pytest.approx(held(model), rel=1e-3)


def test_adapters_gradients_and_moments_are_those_of_a_real_step(checkpoint: Path) -> None:
    model = attach_adapter(load_quantised(checkpoint, "float32", "cpu"), lora_config(**dict(LORA)))
    trained = [one for one in model.parameters() if one.requires_grad]
    for one in trained:
        one.grad = torch.ones_like(one)
    optimizer = torch.optim.AdamW(trained)
    optimizer.step()
    moments = sum(state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq"))
    parts = memory.adapters(meta_model(checkpoint, "float32", "cpu", LORA).model, "adamw")
    assert parts == {"adapters and gradients": 2 * sum(one.nbytes for one in trained), "optimizer (adamw)": moments}


def test_a_frozen_encoder_has_neither_gradients_nor_moments(checkpoint: Path) -> None:
    meta = meta_model(checkpoint, "float32", "cpu", LORA)
    every = memory.trainable(meta.model)
    freeze_encoder(meta.model)
    left = memory.trainable(meta.model)
    assert left < every
    assert memory.adapters(meta.model, "paged-adamw-8bit") == {
        "adapters and gradients": 4 * (every + left),
        "optimizer (paged-adamw-8bit)": 2 * left,
    }


@pytest.fixture(scope="module")
def three_billion(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., MetaModel]:
    """PaliGemma-3B by its configuration."""
    folder = tmp_path_factory.mktemp("shape")
    true_shape.config(257_152).save_pretrained(folder)
    return lambda device, lora=None: meta_model(folder, "bfloat16", device, lora)


@pytest.mark.parametrize(
    ("rank", "targets", "trainable", "share"),
    [
        (4, "table2", 5_649_408, 0.1929),
        (8, "table2", 11_298_816, 0.3850),
        (16, "table2", 22_597_632, 0.7670),
        (8, "all-linear", 14_179_072, 0.4827),
    ],
)
def test_table_iis_counts_without_a_weight(
    three_billion: Callable[..., MetaModel], rank: int, targets: str, trainable: int, share: float
) -> None:
    counts = count_parameters(three_billion("cpu", LORA.model_copy(update={"rank": rank, "targets": targets})).model)
    assert counts["trainable_parameters"] == trainable
    assert round(counts["share"], 4) == share


def test_a_3b_step_in_gigabytes(three_billion: Callable[..., MetaModel]) -> None:
    """Measured at the true shape on a CPU, bfloat16: 1.8 GiB a row of 295 tokens, NF4 decoder and all else 2.9 GB."""
    meta = three_billion("cpu", LORA.model_copy(update={"rank": 16}))
    one, two = (meta.train(rows, 5, 34) for rows in (1, 2))
    assert one.saved / 2**30 == pytest.approx(1.71, abs=0.02)
    assert two.saved == pytest.approx(2 * one.saved, rel=0.001), "a step's bytes grow evenly with its rows"
    parts = memory.weights(meta, dequantised=False)
    assert parts["decoder in NF4"] / 1e9 == pytest.approx(1.98 * 0.5 * (1 + 1 / 32), abs=0.02)
    assert parts["embeddings, SigLIP and projector"] / 1e9 == pytest.approx(1.88, abs=0.02)


def need(items: int = 16, of: int = 0, unit: str = "rows", device: str = "cpu") -> Need:
    """Two billion bytes whatever the number, and one billion an item."""
    return Need("machine.training_rows", items, unit, {"weights": 2 * 10**9}, lambda n: n * 10**9, device, of)


@pytest.mark.parametrize(
    ("free", "of", "most"), [(30e9, 0, 20), (30e9, 16, 16), (13e9, 16, 4), (13e9, 0, 7), (3e9, 16, 0)]
)
def test_the_most_that_fits(free: float, of: int, most: int) -> None:
    """Of a step's 16 rows only what divides them."""
    one = need(of=of)
    assert one.largest(int(free)) == most
    if most:
        assert dataclasses.replace(one, items=most).total <= free


def test_the_line_says_what_needs_how_much_and_what_to_set() -> None:
    one = need(of=16)
    assert told(one, int(13e9)) == (
        "machine.training_rows: 16 rows at a time need 24.1 GB (weights 2.0, 16 rows 16.0, margin 6.1), "
        "13.0 GB are free on cpu"
    )
    assert remedy(one, int(13e9), MACHINE) == "the most that fit are 4: set the profile's machine.training_rows: 4"


@pytest.mark.parametrize(
    ("machine", "unit", "remedies"),
    [
        ({}, "rows", "machine.dequantise: false, which is slower, or machine.optimizer: paged-adamw-8bit, or a larger"),
        ({"dequantise": False}, "rows", "machine.optimizer: paged-adamw-8bit, or a larger device"),
        ({"optimizer": "paged-adamw-8bit"}, "rows", "machine.dequantise: false, which is slower, or a larger device"),
        ({}, "test images", "machine.dequantise: false, which is slower, or a larger device"),
        ({"dequantise": False}, "test images", "it needs a larger device"),
    ],
)
def test_where_not_even_one_fits_there_is_another_way(machine: dict[str, Any], unit: str, remedies: str) -> None:
    assert remedies in remedy(need(unit=unit), int(1e9), MACHINE.model_copy(update=machine))


def test_what_fits_passes_and_every_fault_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(13e9))
    require([need(items=7)], MACHINE)
    with pytest.raises(UserError, match=r"(?s)16 rows at a time.*\n.*64 rows at a time"):
        require([need(), need(items=64), need(items=2)], MACHINE)


def test_a_pass_is_no_more_than_the_steps_rows_and_processes_share_them(checkpoint: Path) -> None:
    def rows(**recipe: Any) -> tuple[int, int]:
        one = finetune_needs(checkpoint, change(RECIPE, **recipe), 9, "cpu")[0]
        return one.items, one.of

    assert rows() == (8, 16)
    assert rows(training_rows=64) == (16, 16)
    assert rows(processes=4) == (4, 4)
    images = scst_needs(checkpoint, change(REFINED, processes=2), "cpu")[0]
    assert (images.key, images.items) == ("scst.batch", 4)


def test_the_start_is_held_beside_the_policy_where_there_is_a_penalty(checkpoint: Path) -> None:
    without, within = (scst_needs(checkpoint, change(REFINED, kl=kl), "cpu")[0].fixed for kl in (0.0, 0.1))
    assert sum(within.values()) > sum(without.values())


def test_lengths_are_the_tokenisers(processor: Any) -> None:
    captions = ["a red plane", "two blue boats docked neatly at the pier ."]
    batch = tokenise(processor, ["caption en"] * 2, captions)
    longest = memory.longest_suffix(processor, captions)
    assert longest == int(batch["token_type_ids"].sum(dim=1).max())
    prompt = memory.prompt_length(processor, "caption en")
    assert batch["input_ids"].shape[1] == processor.image_seq_length + prompt + longest


def test_a_stage_that_cannot_fit_ends_before_a_weight_is_loaded(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages import generate

    def load(*_: Any) -> None:
        raise AssertionError("a weight was loaded")

    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    params = load_params()
    prompt, tokens, machine = params.finetune.prompt, params.decoding.maximum_tokens, params.active.machine
    needed = memory.generation_needs(checkpoint, prompt, tokens, machine, "cpu", None)[0].total
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed - 1)
    monkeypatch.setattr(generate, "load_frozen", load)
    monkeypatch.setattr("sys.argv", ["generate", "--checkpoint", str(checkpoint), "--out", "captions.jsonl"])
    with pytest.raises(SystemExit):
        generate.main()
    batch = machine.decoding_batch
    line = capsys.readouterr().err
    assert line.startswith(f"error: machine.decoding_batch: {batch} test images at a time need 0.")
    assert "0.5 GB are free on cpu; the most that fit are " in line and line.count("\n") == 1
