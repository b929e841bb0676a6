"""Fetch a checkpoint from the Hub or from a local folder.

1. Downloads land outside DVC's outputs, which are deleted before a run, and stay until DVC has recorded the checkpoint:
   an interrupted download continues (data/hub.py).
2. The commit of a branch is written to `SOURCE_FILE`, which is not part of the checkpoint: a recipe names weights, so a
   new commit with the same weights retrains nothing.
"""

import shutil
from fnmatch import fnmatch
from pathlib import Path

from captioning.base.errors import UserError
from captioning.base.files import write_json
from captioning.base.hashes import SOURCE_FILE
from captioning.data import hub
from captioning.data.revisions import link_or_copy
from captioning.paligemma.folder import INDEX, read_index, require_checkpoint
from captioning.runtime.paths import exclusive_folder

TOKENIZER = "tokenizer.model"
FILE_PATTERNS = ["*.safetensors", "*.json", TOKENIZER]  # never pickles, never code
PARTS = (
    "config.json",
    "*.safetensors",
    "tokenizer.json or tokenizer.model",
    "preprocessor_config.json or processor_config.json",
)
ALTERNATIVE = "set checkpoints.origin to `folder` and each repository to a local folder"


def fetch_checkpoint(origin: str, repository: str, revision: str, folder: Path, downloads: Path) -> None:
    """Fetch a checkpoint into `folder`: from the Hub through `downloads`, or from the local folder `repository`.

    Raises `UserError` with the remedy if that fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if origin == "folder":
        for path in _list_local_files(open_local_folder(repository)):
            shutil.copyfile(path, folder / path.name)
        return
    with exclusive_folder(downloads):
        snapshot = _resolve(repository, revision, downloads)
        for name, path in _fetch_files(snapshot, downloads).items():
            link_or_copy(path, folder / name)  # the download stays until DVC has recorded the output
    write_json(folder / SOURCE_FILE, {"repository": repository, "revision": revision, "commit": snapshot.commit})


def explain_unavailable(origin: str, repository: str, revision: str, downloads: Path) -> str | None:
    """Return in one line why a checkpoint cannot be fetched and how to get it, or None if it can.

    With HF_HUB_OFFLINE that is only printed: DVC may have the checkpoint, otherwise its stage refuses.
    """
    try:
        if origin == "folder":
            open_local_folder(repository)
        else:
            _select_files(_resolve(repository, revision, downloads))
    except UserError as error:
        return hub.explain(error)
    return None


def open_local_folder(repository: str) -> Path:
    """Return the folder of a local checkpoint. Raises `UserError` if it holds none."""
    folder = Path(repository)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder}: no config.json and *.safetensors; correct checkpoints.*.repository")
    require_checkpoint(folder)
    return folder


def _list_local_files(folder: Path) -> list[Path]:
    """Return the files that the Hub would give of this checkpoint: with an index, only the weights that it names."""
    paths = [path for pattern in FILE_PATTERNS for path in sorted(folder.glob(pattern))]
    named = {name for index in folder.glob(INDEX) for name in read_index(index, ALTERNATIVE)}
    return [path for path in paths if not named or path.suffix != ".safetensors" or path.name in named]


def _resolve(repository: str, revision: str, downloads: Path) -> hub.Snapshot:
    return hub.resolve_revision(hub.Repository("model", repository, revision, ALTERNATIVE), downloads)


def _select_files(snapshot: hub.Snapshot) -> list[hub.HubFile]:
    """Select a checkpoint's files at the top of the repository. Raises `UserError` if a part is missing."""
    matches = [file for file in snapshot.files if any(fnmatch(file.path, pattern) for pattern in FILE_PATTERNS)]
    files = [file for file in matches if "/" not in file.path and file.path != SOURCE_FILE]
    missing = [
        part for part in PARTS if not any(fnmatch(file.path, name) for file in files for name in part.split(" or "))
    ]
    if missing:
        reason = f"{snapshot.label} holds no {', no '.join(missing)}"
        raise snapshot.repository.error(f"{reason}; set checkpoints.*.revision to one that does")
    return files


def _fetch_files(snapshot: hub.Snapshot, downloads: Path) -> dict[str, Path]:
    """Fetch a checkpoint's files, JSON first: its index names the weights that belong to it, and shows missing ones."""
    files = {file.path: file for file in _select_files(snapshot)}
    paths = hub.fetch_files(snapshot, [file for name, file in files.items() if name.endswith(".json")], downloads)
    weights = {name for name in files if name.endswith(".safetensors")}
    if index := next((name for name in paths if fnmatch(name, INDEX)), None):
        shards = read_index(paths[index], ALTERNATIVE)
        if missing := sorted(shards - weights):
            raise snapshot.repository.error(f"its {index} names {', '.join(missing)}, which the revision does not hold")
        weights = shards
    large = [file for name, file in files.items() if name in weights or name == TOKENIZER]
    return paths | hub.fetch_files(snapshot, large, downloads)
