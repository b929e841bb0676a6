"""Where a checkpoint comes from when it is not made here.

1. What is fetched lands outside DVC's outputs, which are deleted before a run, and stays until DVC has recorded
   the checkpoint: an interrupted download goes on where it was (data/hub.py).
2. The commit a branch stood at is kept beside the files, in `SOURCE`, and is none of them: a recipe names weights, and
   a new commit with the same weights retrains nothing.
"""

import json
import os
import shutil
from fnmatch import fnmatch
from pathlib import Path

from captioning.base.errors import UserError
from captioning.base.files import write_json
from captioning.base.hashes import SOURCE_FILE
from captioning.data import hub
from captioning.paligemma.folder import require_checkpoint

TOKENIZER = "tokenizer.model"
FILE_PATTERNS = ["*.safetensors", "*.json", TOKENIZER]  # never pickles, never code
PARTS = (
    "config.json",
    "*.safetensors",
    "tokenizer.json or tokenizer.model",
    "preprocessor_config.json or processor_config.json",
)
INDEX = "*.safetensors.index.json"
ALTERNATIVE = "set checkpoints.origin to `folder` and each repository to a local folder"


def fetch_checkpoint(origin: str, repository: str, revision: str, folder: Path, downloads: Path) -> None:
    """Bring a checkpoint into `folder`: from the Hub by way of `downloads`, or from a local folder named as repository.

    Raises:
        UserError: it cannot be had; says how.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if origin == "folder":
        source = open_local_folder(repository)
        for path in (path for pattern in FILE_PATTERNS for path in sorted(source.glob(pattern))):
            shutil.copyfile(path, folder / path.name)
        return
    snapshot = hub.resolve_revision(_model(repository, revision))
    for name, path in _fetch_whole(snapshot, downloads).items():
        _link(path, folder / name)
    told = {"repository": repository, "revision": revision, "commit": snapshot.commit}
    write_json(folder / SOURCE_FILE, told)


def _link(path: Path, other: Path) -> None:
    """Make `other` of a download, which stays until DVC has recorded the checkpoint; takes no room where links do."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def _model(repository: str, revision: str) -> hub.Repository:
    return hub.Repository("model", repository, revision, ALTERNATIVE)


def _fetch_whole(snapshot: hub.Snapshot, downloads: Path) -> dict[str, Path]:
    """The files of a checkpoint, the small ones first: an index says which weights are its own, and what is lacking."""
    files = {file.path: file for file in _files(snapshot)}
    there = hub.fetch_files(snapshot, [file for name, file in files.items() if name.endswith(".json")], downloads)
    weights = {name for name in files if name.endswith(".safetensors")}
    if index := next((name for name in there if fnmatch(name, INDEX)), None):
        named = _shards(snapshot, there[index])
        if lacking := sorted(named - weights):
            raise snapshot.repository.error(f"its {index} names {', '.join(lacking)}, which the revision does not hold")
        weights = named
    large = [file for name, file in files.items() if name in weights or name == TOKENIZER]
    return there | hub.fetch_files(snapshot, large, downloads)


def _files(snapshot: hub.Snapshot) -> list[hub.HubFile]:
    """What a checkpoint is made of, at the top of the repository. Raises `UserError` where a part is lacking."""
    wanted = [file for file in snapshot.files if any(fnmatch(file.path, pattern) for pattern in FILE_PATTERNS)]
    kept = [file for file in wanted if "/" not in file.path and file.path != SOURCE_FILE]
    lacking = [
        part for part in PARTS if not any(fnmatch(file.path, one) for file in kept for one in part.split(" or "))
    ]
    if lacking:
        told = f"revision {snapshot.repository.revision!r} holds no {', no '.join(lacking)}"
        raise snapshot.repository.error(f"{told}; set checkpoints.*.revision to one that does")
    return kept


def _shards(snapshot: hub.Snapshot, index: Path) -> set[str]:
    """The files that an index of weights names."""
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError):
        raise snapshot.repository.error(f"its {index.name} is no index of weights") from None


def open_local_folder(repository: str) -> Path:
    """The folder a local checkpoint stands in. Raises `UserError` where there is none."""
    folder = Path(repository)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder}: no checkpoint folder (config.json and *.safetensors); mend checkpoints.*.repository"
        )
    require_checkpoint(folder)
    return folder


def explain_unavailable(origin: str, repository: str, revision: str) -> str | None:
    """None where a checkpoint can be fetched; else one line that says what is missing and how to get it."""
    try:
        if origin == "folder":
            open_local_folder(repository)
        else:
            _files(hub.resolve_revision(_model(repository, revision)))
    except UserError as error:
        return str(error)
    return None
