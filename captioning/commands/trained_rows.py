"""Trained rows: which stand on this disk, and all that captioning with one of them needs.

A row's name is that of its adapter, `<row>-<seed>`; the row alone where it has one seed; `zero-shot-<checkpoint>`; or
the path of an adapter's folder. An adapter is used as it was trained: its model card holds the recipe, and where
data/recipes has another one by now, that is told instead of guessed.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from captioning.adapters.card import extract_recipe
from captioning.base.errors import UserError
from captioning.base.json_files import read_json
from captioning.params.load import CHECKPOINTS, Params
from captioning.params.recipe import AnyRecipe, read_any_recipe
from captioning.params.sections import Machine

ADAPTERS, STARTS, RECIPES = Path("models/adapters"), Path("models/checkpoints"), Path("data/recipes")
ZERO_SHOT = "zero-shot-"
SEEDED = re.compile(r"(.+)-\d+")


@dataclass(frozen=True)
class TrainedRow:
    """A checkpoint, an adapter for it or none, and how captions are asked of them."""

    name: str
    checkpoint: Path
    files: dict[str, str]  # SHA-256 of each of the checkpoint's, by name
    adapter: Path | None
    prompt: str
    machine: Machine


def names() -> list[str]:
    """Every row that could be captioned with: adapters, then checkpoints as they are."""
    adapters = sorted(path.parent.name for path in ADAPTERS.glob("*/adapter_config.json"))
    starts = sorted(path.parent.name for path in STARTS.glob("*/config.json"))
    return adapters + [f"{ZERO_SHOT}{name}" for name in starts]


def find(name: str | None, params: Params) -> TrainedRow:
    """The row called `name`. Raises `UserError` where there is none, or where it is not said which."""
    there = names()
    if name is None:
        raise UserError(f"no --model; {_choice(there)}")
    if name in there and name.startswith(ZERO_SHOT):
        return zero_shot(name, params)
    folder = adapter_folder(name, there)
    trained = recipe(folder)
    checkpoint = trained.checkpoint
    return TrainedRow(folder.name, STARTS / checkpoint.name, checkpoint.files, folder, trained.prompt, trained.machine)


def adapter_folder(name: str, there: Sequence[str]) -> Path:
    """The folder of the adapter called `name`, of a row with one seed, or at that path; `there`: of `names`."""
    seeds = [one for one in there if (match := SEEDED.fullmatch(one)) and match[1] == name]
    if name not in there and len(seeds) > 1:
        raise UserError(f"{name} has {len(seeds)} seeds; choose one of {', '.join(seeds)}")
    own = ADAPTERS / (name if name in there or not seeds else seeds[0])
    for folder in (own, Path(name)):
        if (folder / "adapter_config.json").is_file():
            return folder
    raise UserError(f"{name}: no such row, and no folder of an adapter; {_choice(there)}")


def _choice(there: Sequence[str]) -> str:
    return f"choose one of {', '.join(there)}" if there else "nothing is trained here; `dvc repro` does, or `dvc pull`"


def recipe(folder: Path) -> AnyRecipe:
    """Return the recipe in the card of the adapter in `folder`. Raises `UserError` if data/recipes has another now."""
    card = folder / "README.md"
    trained = extract_recipe(card.read_text(encoding="utf-8", errors="replace")) if card.is_file() else None
    if trained is None:
        raise UserError(f"{card}: no recipe in it, so the prompt is unknown; use the README.md that its stage wrote")
    path = RECIPES / f"{trained.variant}.json"
    if folder.parent == ADAPTERS and path.is_file() and read_any_recipe(path) != trained:
        raise UserError(
            f"{folder} was trained by another recipe than {path}; run `dvc repro`, "
            f"or name the folder to use it as it is: {folder.absolute()}"
        )
    return trained


def row_of(adapter: str) -> str:
    """The row of an adapter called `<row>-<seed>`, as the scores name it."""
    match = SEEDED.fullmatch(adapter)
    return match[1] if match else adapter


def zero_shot(name: str, params: Params) -> TrainedRow:
    """A checkpoint as it is, asked as the `zero-shot` stage asks it: what no recipe says is in params.yaml."""
    checkpoint = STARTS / name.removeprefix(ZERO_SHOT)
    hashes = checkpoint.with_name(f"{checkpoint.name}.json")
    if not hashes.is_file():
        remedy = (
            f"`dvc repro checkpoint@{checkpoint.name}` writes it" if checkpoint.name in CHECKPOINTS else "mend --model"
        )
        raise UserError(f"{hashes}: the hashes of {checkpoint} are not there; {remedy}")
    files = read_json(hashes)
    return TrainedRow(name, checkpoint, files, None, params.finetune.prompt, params.active.machine)
