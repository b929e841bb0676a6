"""Sizes that are `auto`: the largest that fit, the same for all processes and for a run that continues, and no more."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from captioning.adapters.card import extract_recipe, model_card
from captioning.base.errors import UserError
from captioning.compute.processes import Processes
from captioning.limits import memory, sizes
from captioning.limits.memory import Need, finetune_needs
from captioning.limits.scst import scst_needs
from captioning.limits.sizes import fit_machine
from tests.helpers.small_recipes import change, scst_recipe, variant_recipe

GB = 10**9
AUTO = {"training_rows": "auto", "scst_images": "auto", "decoding_batch": "auto"}
MACHINE = variant_recipe(**AUTO).machine
ALONE = Processes()


def make_needs(rows: int = 16, images: int = 256) -> list[Need]:
    """Return needs of 2 GB for any number, and 1 GB per row or half a GB per image, on a CPU with its margins."""
    fixed = {"weights": 2 * GB}
    return [
        Need("machine.training_rows", rows, "rows", fixed, lambda n: n * GB, "cpu", 16),
        Need("machine.decoding_batch", images, "validation rows", fixed, lambda n: n * GB // 2, "cpu"),
    ]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sizes, "run_folder", lambda: tmp_path)
    return tmp_path


def free(gigabytes: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(gigabytes * GB))


@pytest.mark.parametrize(
    ("gigabytes", "rows", "images"), [(4, 1, 2), (8, 4, 8), (13, 4, 8), (13.4, 8, 16), (30, 16, 32), (900, 16, 256)]
)
def test_the_largest_sizes_that_fit_are_chosen_and_reported(
    gigabytes: float, rows: int, images: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By hand: 2 GB + 0.5 GB + 1.35 × rows, of which a power of two divides 16; images take half as much."""
    free(gigabytes, monkeypatch)
    machine = fit_machine(make_needs(), MACHINE, None)
    assert (machine.training_rows, machine.decoding_batch) == (rows, images)
    assert machine.scst_images == "auto", "this training has none"
    most = 2.5 + 1.35 * max(rows, images / 2)
    assert most <= gigabytes
    assert capsys.readouterr().err == (
        f"auto: machine.training_rows {rows}, machine.decoding_batch {images}: {most:.1f} of "
        f"{gigabytes:.1f} GB free on cpu\n"
    )


def test_a_number_stays_and_nothing_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free(30, monkeypatch)
    machine = variant_recipe(training_rows=2, decoding_batch=8).machine
    assert fit_machine(make_needs(2, 8), machine, ALONE) == machine
    assert capsys.readouterr().err == "" and not list(folder.iterdir())
    with pytest.raises(UserError, match=r"machine\.decoding_batch: 64 validation rows at a time need 45"):
        fit_machine(make_needs(2, 64), change(variant_recipe(), decoding_batch=64).machine, ALONE)


def test_one_line_says_that_not_even_one_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    free(3, monkeypatch)
    with pytest.raises(UserError) as error:
        fit_machine(make_needs(), MACHINE, ALONE)
    assert str(error.value).startswith("machine.training_rows: 1 rows at a time need 3.9 GB (weights 2.0")
    assert "not even one fits; set the profile's machine.optimizer" in str(error.value)


@pytest.mark.parametrize(("later", "expected"), [(30, (4, 8)), (7, (2, 4))])
def test_an_interrupted_run_keeps_its_sizes_if_they_still_fit(
    later: float, expected: tuple[int, int], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(8, monkeypatch)
    fit_machine(make_needs(), MACHINE, ALONE)
    assert json.loads((folder / "cpu/sizes.json").read_text()) == {"training_rows": 4, "decoding_batch": 8}
    free(later, monkeypatch)
    machine = fit_machine(make_needs(), MACHINE, ALONE)
    assert (machine.training_rows, machine.decoding_batch) == expected
    (folder / "cpu/sizes.json").write_text("{")
    free(30, monkeypatch)
    assert fit_machine(make_needs(), MACHINE, ALONE).training_rows == 16


def test_processes_with_unequal_memory_take_the_smallest_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    free(30, monkeypatch)
    others = {"training_rows": 2, "decoding_batch": 64}
    monkeypatch.setattr(Processes, "gather_in_order", lambda self, local: [*local, others])
    monkeypatch.setattr(Processes, "wait", lambda self: None)
    machine = fit_machine(make_needs(), MACHINE, Processes(0, 2))
    assert (machine.training_rows, machine.decoding_batch) == (2, 32)


def test_needs_of_a_training_limit_auto_to_its_step(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free(900, monkeypatch)
    recipe, refined = variant_recipe(**AUTO, batch=4, accumulation=4), scst_recipe(**AUTO, batch=6)
    machine = fit_machine(finetune_needs(checkpoint, recipe, 9, "cpu"), recipe.machine, None)
    assert (machine.training_rows, machine.decoding_batch) == (16, 256)
    machine = fit_machine(scst_needs(checkpoint, refined, "cpu"), refined.machine, None)
    assert (machine.scst_images, machine.decoding_batch) == (6, 256)


def test_a_size_that_is_still_auto_is_refused() -> None:
    with pytest.raises(ValueError, match="decoding_batch is still auto"):
        MACHINE.chosen("decoding_batch")


def test_the_card_of_an_adapter_keeps_auto() -> None:
    recipe: Any = variant_recipe(**AUTO)
    card = model_card("mix-1", recipe, {"trainable_parameters": 1, "share": 0.1})
    assert extract_recipe(card) == recipe and '"training_rows": "auto"' in card


@pytest.mark.parametrize(
    ("device", "compute", "has_units", "notes"),
    [
        ("cuda", "bfloat16", False, 1),
        ("cuda", "bfloat16", True, 0),
        ("cuda", "float16", False, 0),
        ("cpu", "bfloat16", False, 0),
    ],
)
def test_a_gpu_without_bfloat16_is_noted(
    device: str,
    compute: str,
    has_units: bool,
    notes: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    free(30, monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or has_units)
    needs = [replace(need, device=device) for need in make_needs(2, 8)]
    fit_machine(needs, variant_recipe(compute=compute).machine, None)
    assert capsys.readouterr().err.count("machine.compute: float16 is several times as fast") == notes
