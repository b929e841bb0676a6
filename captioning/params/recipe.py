"""A recipe holds everything that the training of one row depends on; params/recipes.py makes it from params.yaml."""

from pathlib import Path
from typing import Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from captioning.base.errors import UserError
from captioning.base.hashes import require_hashes
from captioning.params.faults import describe_faults
from captioning.params.sections import (
    Captions,
    Checkpoint,
    Decoding,
    Finetune,
    Launch,
    Lora,
    Machine,
    NonNegative,
    PositiveNumber,
    ProfileScst,
    Section,
    SharedScst,
)
from captioning.runtime import inputs

CHECKPOINT_FOLDER = Path("models/checkpoints")


class FinetuneSettings(Finetune):
    """The sections `finetune` of params.yaml and of its profile, with the changes of the variant."""

    captions: Captions
    minimum_steps: NonNegative
    learning_rate: float


class ScstSettings(SharedScst, ProfileScst, Decoding):
    """The sections `scst` of params.yaml and of its profile, with the settings of the refined row."""

    start: str  # the variant that is refined
    baseline: Literal["greedy", "leave-one-out"]
    learning_rate: PositiveNumber  # divided by the scaling of the adapter
    prompt: str


class StartCheckpoint(Section):
    """The checkpoint that a training starts from, with the SHA-256 of each file.

    Published weights may be from the Hub or a folder: the same files are the same start.
    """

    name: Checkpoint
    origin: Literal["miniature", "published"]
    files: dict[str, str]


class Recipe(Section):
    """The part that recipes of both kinds share."""

    variant: str  # name of the row
    checkpoint: StartCheckpoint
    lora: Lora
    machine: Machine
    launch: Launch


class VariantRecipe(Recipe):
    """The recipe of a supervised training."""

    finetune: FinetuneSettings

    @property
    def prompt(self) -> str:
        return self.finetune.prompt


class ScstRecipe(Recipe):
    """The recipe of a self-critical refinement."""

    scst: ScstSettings

    @property
    def prompt(self) -> str:
        return self.scst.prompt


AnyRecipe = VariantRecipe | ScstRecipe
R = TypeVar("R", bound=Recipe)
ANY: TypeAdapter[AnyRecipe] = TypeAdapter(AnyRecipe)


def read_recipe(path: Path, kind: type[R]) -> R:
    """Read a recipe of one kind. Raises `UserError` if the file does not hold one."""
    return _read(path, TypeAdapter(kind))


def read_any_recipe(path: Path) -> AnyRecipe:
    """Read a recipe of either kind. Raises `UserError` if the file does not hold one."""
    return _read(path, ANY)


def _read(path: Path, kind: TypeAdapter[R]) -> R:
    try:
        return kind.validate_json(path.read_bytes())
    except ValidationError as error:
        fault, remedy = describe_faults(error)[0], "run `dvc repro recipes`, which writes it again"
        raise UserError(f"{path}: {fault}; {remedy}") from None


def open_checkpoint(start: StartCheckpoint) -> Path:
    """Return the folder of a recipe's checkpoint, which the stage watches while it works, since dvc.yaml cannot name
    it. Raises `UserError` if its files are not those of the recipe."""
    folder = CHECKPOINT_FOLDER / start.name
    inputs.watch(folder)
    require_hashes(folder, start.files)
    return folder
