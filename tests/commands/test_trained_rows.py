"""A name finds an adapter, and the adapter the recipe it was trained by."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from captioning.adapters.card import model_card
from captioning.base.errors import UserError
from captioning.commands.trained_rows import find_row, list_rows, read_trained_recipe
from captioning.params.load import load_params
from captioning.params.recipe import AnyRecipe
from tests.helpers.small_recipes import change, scst_recipe, variant_recipe

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
COUNTS = {"trainable_parameters": 1, "all_parameters": 2, "share": 50.0}


def recipe(row: str) -> AnyRecipe:
    make = scst_recipe if row.startswith("scst-") else variant_recipe
    return make(variant=row, prompt=f"ask {row}", files={"config.json": "ab"})


def write_adapters(folder: Path, row: str, seeds: Iterable[int]) -> None:
    for seed in seeds:
        adapter = folder / f"models/adapters/{row}-{seed}"
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text("{}")
        (adapter / "README.md").write_text(model_card(adapter.name, recipe(row), COUNTS), encoding="utf-8")
    recipes = folder / "data/recipes"
    recipes.mkdir(parents=True, exist_ok=True)
    (recipes / f"{row}.json").write_text(recipe(row).model_dump_json(), encoding="utf-8")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_adapters(tmp_path, "mix", [1])
    write_adapters(tmp_path, "mix-r4", [1, 2])
    write_adapters(tmp_path, "scst-mix-leave-one-out", [7])
    start = tmp_path / "models/checkpoints/base"
    start.mkdir(parents=True)
    (start / "config.json").write_text("{}")
    start.with_name("base.json").write_text('{"config.json": "cd"}')
    return tmp_path


@pytest.mark.parametrize(
    ("name", "adapter", "prompt"),
    [
        ("mix-1", "mix-1", "ask mix"),
        ("mix", "mix-1", "ask mix"),
        ("mix-r4-2", "mix-r4-2", "ask mix-r4"),
        ("scst-mix-leave-one-out", "scst-mix-leave-one-out-7", "ask scst-mix-leave-one-out"),
    ],
)
def test_a_row_is_found_by_its_name(name: str, adapter: str, prompt: str) -> None:
    row = find_row(name, PARAMS)
    assert (row.name, row.adapter) == (adapter, Path("models/adapters") / adapter)
    assert (row.prompt, row.machine) == (prompt, recipe("mix").machine)
    assert (row.checkpoint, row.files) == (Path("models/checkpoints/mix"), {"config.json": "ab"})


def test_a_checkpoint_without_adapter_uses_params_yaml(project: Path) -> None:
    row = find_row("zero-shot-base", PARAMS)
    assert (row.checkpoint, row.files, row.adapter) == (Path("models/checkpoints/base"), {"config.json": "cd"}, None)
    assert (row.prompt, row.machine) == (PARAMS.finetune.prompt, PARAMS.active.machine)
    (project / "models/checkpoints/base.json").unlink()
    with pytest.raises(UserError, match="checkpoint@base"):
        find_row("zero-shot-base", PARAMS)


def test_an_adapter_in_another_folder_is_found(project: Path) -> None:
    (project / "models/adapters/mix-1").rename(project / "copy")
    assert find_row(str(project / "copy"), PARAMS).prompt == "ask mix"
    assert find_row("copy", PARAMS).adapter == Path("copy")


def test_an_error_lists_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["mix-1", "mix-r4-1", "mix-r4-2", "scst-mix-leave-one-out-7", "zero-shot-base"]
    assert list_rows() == names
    for name in (None, "mixx"):
        with pytest.raises(UserError, match=", ".join(names)):
            find_row(name, PARAMS)
    with pytest.raises(UserError, match="choose one of mix-r4-1, mix-r4-2"):
        find_row("mix-r4", PARAMS)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match="dvc repro"):
        find_row("mix", PARAMS)


def test_a_recipe_that_changed_since_is_refused(project: Path) -> None:
    path = project / "data/recipes/mix.json"
    path.write_text(change(recipe("mix"), rank=8).model_dump_json())
    with pytest.raises(UserError, match=r"trained by another recipe than data/recipes/mix\.json") as error:
        find_row("mix", PARAMS)
    folder = str(error.value).rsplit(": ", 1)[1]
    assert find_row(folder, PARAMS).prompt == "ask mix"
    path.unlink()
    assert find_row("mix", PARAMS).prompt == "ask mix"


@pytest.mark.parametrize("card", [None, "# A card\n", "## Recipe\n\n```json\n{broken\n```\n"])
def test_a_card_without_a_recipe_is_refused(project: Path, card: str | None) -> None:
    path = project / "models/adapters/mix-1/README.md"
    path.unlink() if card is None else path.write_text(card)
    with pytest.raises(UserError, match=r"mix-1/README\.md: (no|its) recipe"):
        find_row("mix", PARAMS)


@pytest.mark.parametrize(
    "broken",
    [
        {"checkpoint": "mix"},
        {"checkpoint": {"name": "../../mix", "origin": "miniature", "files": {}}},
        {"machine": recipe("mix").machine.model_dump() | {"compute": "load"}},
        {"finetune": []},
    ],
)
def test_a_card_with_a_broken_recipe_is_refused(tmp_path: Path, broken: dict[str, Any]) -> None:
    """A card from elsewhere can name neither another folder nor a function of torch."""
    card = f"## Recipe\n\n```json\n{json.dumps(recipe('mix').model_dump() | broken)}\n```\n".encode()
    (tmp_path / "README.md").write_bytes(card + b"\xff")
    with pytest.raises(UserError, match=r"README\.md: its recipe is damaged or of another version"):
        read_trained_recipe(tmp_path)
