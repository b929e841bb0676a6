"""A name finds its adapter, and the adapter what it was trained by."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from captioning.adapters.card import extract_recipe, model_card
from captioning.base.errors import UserError
from captioning.commands.trained_rows import find_row, row_names
from captioning.commands.trained_rows import read_trained_recipe as read_recipe
from captioning.params.load import load_params
from captioning.params.recipe import AnyRecipe
from tests.helpers.small_recipes import change, scst_recipe, variant_recipe

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
COUNTS = {"trainable_parameters": 1, "all_parameters": 2, "share": 50.0}


def recipe(row: str) -> AnyRecipe:
    make = scst_recipe if row.startswith("scst-") else variant_recipe
    return make(variant=row, prompt=f"ask {row}", files={"config.json": "ab"})


def trained(folder: Path, row: str, seeds: Iterable[int]) -> None:
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
    trained(tmp_path, "mix", [1])
    trained(tmp_path, "mix-r4", [1, 2])
    trained(tmp_path, "scst-mix-leave-one-out", [7])
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
def test_a_row_by_its_name(name: str, adapter: str, prompt: str) -> None:
    row = find_row(name, PARAMS)
    assert (row.name, row.adapter) == (adapter, Path("models/adapters") / adapter)
    assert (row.prompt, row.machine) == (prompt, recipe("mix").machine)
    assert (row.checkpoint, row.files) == (Path("models/checkpoints/mix"), {"config.json": "ab"})


def test_a_checkpoint_as_it_is_by_the_parameters() -> None:
    row = find_row("zero-shot-base", PARAMS)
    assert (row.checkpoint, row.files, row.adapter) == (Path("models/checkpoints/base"), {"config.json": "cd"}, None)
    assert row.prompt == PARAMS.finetune.prompt
    assert row.machine == PARAMS.active.machine


def test_a_folder_elsewhere_by_its_card(project: Path) -> None:
    (project / "models/adapters/mix-1").rename(project / "mine")
    assert find_row(str(project / "mine"), PARAMS).prompt == "ask mix"
    assert find_row("mine", PARAMS).adapter == Path("mine")


def test_every_row_is_listed() -> None:
    there = ["mix-1", "mix-r4-1", "mix-r4-2", "scst-mix-leave-one-out-7", "zero-shot-base"]
    assert row_names() == there
    for name in (None, "mixx"):
        with pytest.raises(UserError, match=", ".join(there)):
            find_row(name, PARAMS)


def test_nothing_trained_says_how_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UserError, match="dvc repro"):
        find_row("mix", PARAMS)


def test_several_seeds_are_to_be_told_apart() -> None:
    with pytest.raises(UserError, match="choose one of mix-r4-1, mix-r4-2"):
        find_row("mix-r4", PARAMS)


def test_a_recipe_that_moved_on_is_told(project: Path) -> None:
    (project / "data/recipes/mix.json").write_text(change(recipe("mix"), rank=8).model_dump_json())
    with pytest.raises(UserError, match=r"trained by another recipe than data/recipes/mix\.json") as told:
        find_row("mix", PARAMS)
    named = str(told.value).rsplit(": ", 1)[1]
    assert find_row(named, PARAMS).prompt == "ask mix"


def test_without_recipes_the_card_is_enough(project: Path) -> None:
    (project / "data/recipes/mix.json").unlink()
    assert find_row("mix", PARAMS).prompt == "ask mix"


@pytest.mark.parametrize(
    "card", [None, "# mine\n", "## Recipe\n\n```json\n{broken\n```\n", "## Recipe\n\n```json\n[]\n```\n"]
)
def test_a_card_without_a_recipe_says_so(project: Path, card: str | None) -> None:
    path = project / "models/adapters/mix-1/README.md"
    path.unlink() if card is None else path.write_text(card)
    with pytest.raises(UserError, match=r"mix-1/README\.md: no recipe"):
        find_row("mix", PARAMS)


def test_missing_hashes_say_who_writes_them(project: Path) -> None:
    (project / "models/checkpoints/base.json").unlink()
    with pytest.raises(UserError, match="checkpoint@base"):
        find_row("zero-shot-base", PARAMS)


def test_the_cards_recipe_is_the_one_it_was_written_with() -> None:
    assert extract_recipe(model_card("mix-1", recipe("mix"), COUNTS)) == recipe("mix")


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
    """A foreign card names neither a folder outside, nor a function of torch's."""
    card = f"## Recipe\n\n```json\n{json.dumps(recipe('mix').model_dump() | broken)}\n```\n".encode()
    (tmp_path / "README.md").write_bytes(card + b"\xff")
    with pytest.raises(UserError, match=r"README\.md: no recipe in it"):
        read_recipe(tmp_path)
