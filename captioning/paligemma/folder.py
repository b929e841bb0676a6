"""A checkpoint's folder before it is loaded: that it is PaliGemma's, in safetensors, and whole."""

from pathlib import Path

from captioning.base.errors import UserError
from captioning.base.json_files import read_map
from captioning.base.quoting import escape, shorten
from captioning.paligemma.tensors import read_shapes

CONFIG, MODEL = "config.json", "paligemma"
INDEX = "*.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model")
REMEDY = "fetch it again, or run `dvc repro checkpoint`"


def require_checkpoint(folder: Path) -> None:
    """Raises `UserError` where `folder` holds no whole PaliGemma in safetensors with its tokenizer."""
    require_config(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{folder}: no *.safetensors, and pickled weights are not read; {REMEDY}")
    for path in weights:
        read_shapes(path)
    named = {name for path in folder.glob(INDEX) for name in _named(path)}
    if lacking := sorted(named - {path.name for path in weights}):
        raise UserError(f"{folder}: its index names {escape(', '.join(lacking[:3]))}, not there; {REMEDY}")
    require_tokenizer(folder)


def require_config(folder: Path) -> None:
    """Raises `UserError` where `folder` has no config.json of a PaliGemma."""
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder}: no checkpoint here; `dvc repro checkpoint` makes it, `dvc pull` fetches it")
    kind = read_map(folder / CONFIG, remedy=REMEDY).get("model_type")
    if kind != MODEL:
        raise UserError(f"{folder / CONFIG}: model_type is {shorten(kind)}; a checkpoint of {MODEL} is wanted")


def require_tokenizer(folder: Path) -> None:
    """Raises `UserError` where `folder` has no tokenizer, or a JSON file that is none."""
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise UserError(f"{folder}: no {' or '.join(TOKENIZERS)}; {REMEDY}")
    for path in sorted(folder.glob("*.json")):
        read_map(path, remedy=REMEDY)


def _named(index: Path) -> set[str]:
    found = read_map(index, remedy=REMEDY).get("weight_map")
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise UserError(f"{index}: no index of weights; {REMEDY}")
    return set(found.values())
