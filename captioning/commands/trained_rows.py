"""Find the trained rows on this disk, and what captioning with one of them needs.

A row is named by its adapter, `<row>-<seed>`; by the row alone if it has one seed; by `zero-shot-<checkpoint>`; or by
the path of an adapter's folder. An adapter is used as it was trained, by the recipe in its model card.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captioning.adapters.card import extract_recipe
from captioning.base.errors import UserError
from captioning.base.json_files import read_json
from captioning.params.recipe import CHECKPOINT_FOLDER, AnyRecipe, read_any_recipe
from captioning.params.sections import CHECKPOINTS, Machine, Params

ADAPTERS, RECIPES = Path("models/adapters"), Path("data/recipes")
ZERO_SHOT = "zero-shot-"
SEEDED = re.compile(r"(.+)-\d+")


@dataclass(frozen=True)
class TrainedRow:
    """A checkpoint with an adapter or none, and the settings for captioning with it."""

    name: str
    checkpoint: Path
    files: dict[str, str]  # SHA-256 of each file of the checkpoint, by name
    adapter: Path | None
    prompt: str
    machine: Machine


def list_adapters() -> list[str]:
    """List the adapters on this disk."""
    return sorted(path.parent.name for path in ADAPTERS.glob("*/adapter_config.json"))


def list_rows() -> list[str]:
    """List the rows on this disk: adapters, then checkpoints without one."""
    starts = sorted(path.parent.name for path in CHECKPOINT_FOLDER.glob("*/config.json"))
    return list_adapters() + [f"{ZERO_SHOT}{name}" for name in starts]


def find_row(name: str | None, params: Params) -> TrainedRow:
    """Return the row of that name. Raises `UserError` if there is none, or if `name` fits several."""
    if name is None:
        raise UserError(f"no --model; {_list_choices(list_rows())}")
    if name in list_rows() and name.startswith(ZERO_SHOT):
        return zero_shot_row(name, params)
    folder = find_adapter(name, list_rows())
    recipe = read_trained_recipe(folder)
    checkpoint = recipe.checkpoint
    return TrainedRow(
        folder.name, CHECKPOINT_FOLDER / checkpoint.name, checkpoint.files, folder, recipe.prompt, recipe.machine
    )


def find_adapter(name: str, choices: Sequence[str] = ()) -> Path:
    """Return the folder of the adapter `name`, of the row `name` if it has one seed, or at that path. Raises
    `UserError` if there is none, with `choices`: the adapters unless others are given."""
    names = list_adapters()
    seeds = [adapter for adapter in names if SEEDED.fullmatch(adapter) and strip_seed(adapter) == name]
    if name not in names and len(seeds) > 1:
        raise UserError(f"{name} has {len(seeds)} seeds; choose one of {', '.join(seeds)}")
    for folder in (ADAPTERS / (name if name in names or not seeds else seeds[0]), Path(name)):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise UserError(f"{name}: no such row, and not an adapter's folder; {_list_choices(choices or names)}")


def _list_choices(names: Sequence[str]) -> str:
    return f"choose one of {', '.join(names)}" if names else "no row is trained here; run `dvc repro` or `dvc pull`"


def read_trained_recipe(folder: Path) -> AnyRecipe:
    """Read the recipe in the card of the adapter in `folder`. Raises `UserError` if data/recipes has another now."""
    card = folder / "README.md"
    try:
        recipe = extract_recipe(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    except UserError as error:
        raise UserError(f"{card}: {error}; use the version that trained it, or train it again") from None
    if recipe is None:
        raise UserError(f"{card}: no recipe in it, so the prompt is unknown; use the README.md that its stage wrote")
    path = RECIPES / f"{recipe.variant}.json"
    if folder.parent == ADAPTERS and path.is_file() and read_any_recipe(path) != recipe:
        raise UserError(
            f"{folder} was trained by another recipe than {path}; run `dvc repro`, "
            f"or name the folder to use it as it is: {folder.absolute()}"
        )
    return recipe


def strip_seed(adapter: str) -> str:
    """Return the row of an adapter called `<row>-<seed>`."""
    match = SEEDED.fullmatch(adapter)
    return match[1] if match else adapter


def zero_shot_row(name: str, params: Params) -> TrainedRow:
    """Return a checkpoint without an adapter, with the settings that the `zero-shot` stage takes from params.yaml."""
    checkpoint = CHECKPOINT_FOLDER / name.removeprefix(ZERO_SHOT)
    hashes = checkpoint.with_name(f"{checkpoint.name}.json")
    if not hashes.is_file():
        is_known = checkpoint.name in CHECKPOINTS
        remedy = f"`dvc repro checkpoint@{checkpoint.name}` writes it" if is_known else "correct --model"
        raise UserError(f"{hashes}: the hashes of {checkpoint} are missing; {remedy}")
    return TrainedRow(name, checkpoint, read_json(hashes), None, params.finetune.prompt, params.active.machine)
