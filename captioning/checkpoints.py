"""Where a checkpoint comes from when it is not made here, and that its files are the ones a recipe names."""

import hashlib
import shutil
from pathlib import Path

from captioning.runlog import UserError

WEIGHTS = ["*.safetensors", "*.json", "tokenizer.model"]  # never pickles, never code


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of `folder`, by name, sorted."""
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(folder: Path, files: dict[str, str]) -> None:
    """Raises `UserError` where `folder` does not hold exactly `files`."""
    found = file_hashes(folder) if folder.is_dir() else {}
    moved = sorted(name for name in files.keys() | found.keys() if files.get(name) != found.get(name))
    if moved:
        raise UserError(f"{folder}: {', '.join(moved)} differ from the recipe; run `dvc repro` to make both anew")


def fetch(origin: str, repository: str, revision: str, folder: Path) -> None:
    """Bring a checkpoint into `folder`: from the Hub, or from a local folder named as repository.

    Raises:
        UserError: it cannot be had; says how.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if origin == "folder":
        source = local_folder(repository)
        for pattern in WEIGHTS:
            for path in sorted(source.glob(pattern)):
                shutil.copyfile(path, folder / path.name)
        return
    import huggingface_hub

    try:
        huggingface_hub.snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=WEIGHTS)
    except Exception as error:  # the client raises a dozen kinds: offline, gated, not found, disk
        raise UserError(how_to_get(repository, error)) from None
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def local_folder(repository: str) -> Path:
    """The folder a local checkpoint stands in. Raises `UserError` where there is none."""
    folder = Path(repository)
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(
            f"{folder}: no checkpoint folder (config.json and *.safetensors); mend checkpoints.*.repository"
        )
    return folder


def available(origin: str, repository: str, revision: str) -> str | None:
    """None where a checkpoint can be fetched; else one line that says what is missing and how to get it."""
    try:
        if origin == "folder":
            local_folder(repository)
            return None
        import huggingface_hub

        huggingface_hub.HfApi().auth_check(repository)
        huggingface_hub.HfApi().model_info(repository, revision=revision, timeout=10)
    except UserError as error:
        return str(error)
    except Exception as error:
        return how_to_get(repository, error)
    return None


def how_to_get(repository: str, error: Exception) -> str:
    """What to do when the Hub said no, in one line and without its traceback."""
    return (
        f"weights {repository} cannot be had ({type(error).__name__}): accept the licence on the model's page of the "
        "Hugging Face Hub, set HF_TOKEN or run `hf auth login`, and be online; or set checkpoints.origin to `folder` "
        "and each repository to a local folder"
    )
