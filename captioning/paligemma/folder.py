"""Check a checkpoint's folder before it is loaded: it must hold a complete PaliGemma in safetensors."""

from pathlib import Path

from captioning.base.errors import UserError
from captioning.base.json_files import read_map
from captioning.base.quoting import escape, shorten
from captioning.paligemma.safetensors_header import read_shapes

CONFIG, MODEL_TYPE = "config.json", "paligemma"
INDEX = "*.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
REMEDY = "fetch it again, or run `dvc repro checkpoint`"


def require_checkpoint(folder: Path) -> None:
    """Raise `UserError` if `folder` does not hold a complete PaliGemma in safetensors with its tokenizer."""
    require_config(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{folder}: no *.safetensors, and pickled weights are not read; {REMEDY}")
    for path in weights:
        read_shapes(path)
    shards = {name for path in folder.glob(INDEX) for name in read_index(path, REMEDY)}
    if missing := sorted(shards - {path.name for path in weights}):
        raise UserError(f"{folder}: {escape(', '.join(missing[:3]))} missing, which its index names; {REMEDY}")
    require_tokenizer(folder)


def read_index(path: Path, remedy: str) -> set[str]:
    """Return the names of the files that an index names. Raises `UserError` if it is not an index of weights."""
    names = read_map(path, "weight_map", remedy=remedy)["weight_map"]
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise UserError(f"{path}: weight_map is not a map of file names; {remedy}")
    return set(names.values())


def require_config(folder: Path) -> None:
    """Raise `UserError` if `folder` has no config.json of a PaliGemma."""
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder}: no checkpoint here; `dvc repro checkpoint` makes it, `dvc pull` fetches it")
    model_type = read_map(folder / CONFIG, remedy=REMEDY).get("model_type")
    if model_type != MODEL_TYPE:
        raise UserError(f"{folder / CONFIG}: model_type is {shorten(model_type)}, not {MODEL_TYPE}; choose another")


def require_tokenizer(folder: Path) -> None:
    """Raise `UserError` if `folder` has no tokenizer, or a damaged JSON file."""
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(f"{folder}: no {' or '.join(TOKENIZERS)}; {REMEDY}")
    for path in sorted(folder.glob("*.json")):
        read_map(path, remedy=REMEDY)
