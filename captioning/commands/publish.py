"""`python -m captioning.commands.publish`: an adapter and its model card, to the Hub or to look at.

1. Without `--upload` nothing touches the network.
2. Only `SENT` goes out: safetensors, JSON and the card. The configuration names the base by its repository instead of a
   folder of this machine; the weights go as they are.
3. A new repository is private unless `--public` is given; one that is public already is left alone without it.
4. The token is the Hub client's own (HF_TOKEN, or `hf auth login`). It is never printed or written, and a parcel that
   holds a token stays here.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioning.base.errors import UserError
from captioning.base.json_files import read_json
from captioning.base.redaction import install_hooks, redact
from captioning.commands.hub_card import Findings, hub_card
from captioning.commands.trained_rows import adapter_folder, names, recipe, row_of
from captioning.params.load import HubCheckpoints, Params, load_params
from captioning.params.recipe import StartCheckpoint
from captioning.runtime.progress import write_stdout

SENT = ("README.md", "adapter_config.json", "adapter_model.safetensors")
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
MAIN = "main"
SIGNED_OUT, FORBIDDEN, MISSING = 401, 403, 404  # HTTP


@dataclass(frozen=True)
class Parcel:
    """What goes to a repository: content, or the file that holds it, by name there; and what stays."""

    files: dict[str, bytes | Path]
    left: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Show or send what the command line names; the exit status."""
    install_hooks()
    chosen = parser().parse_args(arguments)
    try:
        ready = parcel(chosen.row, chosen.repository, load_params())
        check_secrets(ready, chosen.message or "")
        write_stdout(f"{told(ready, chosen)}\n")
        if not chosen.upload:
            print("nothing was sent; add --upload to send it", file=sys.stderr)
            return 0
        message = chosen.message or f"Adapter {chosen.row}"
        write_stdout(f"{send(ready, chosen.repository, chosen.public, chosen.revision, message)}\n")
    except UserError as error:
        print(redact(f"error: {error}"), file=sys.stderr)
        return 1
    except FileNotFoundError as error:
        print(f"error: {error.filename} is not there; `dvc repro` makes it, `dvc pull` fetches it", file=sys.stderr)
        return 1
    return 0


def parcel(name: str, repository: str, params: Params) -> Parcel:
    """The adapter called `name`, with the card for `repository`. Raises `UserError`."""
    folder = adapter_folder(name, names())
    trained = recipe(folder)
    if row_of(folder.name) != trained.variant:  # its scores would be another's
        raise UserError(f"{folder}: its recipe is that of {trained.variant}; name the folder {trained.variant}-SEED")
    base = base_repository(trained.checkpoint, params)
    found = Findings(
        row=row_of(folder.name),
        scores=read_json("metrics/scores.json"),
        splits=read_json("metrics/splits.json"),
        manifest=read_json("data/captions/manifest.json"),
        seeds=len(params.seeds),
        drawn=params.data.source == "overhead",
    )
    card = hub_card((folder / "README.md").read_text(encoding="utf-8"), folder.name, repository, base, found)
    config = read_json(folder / "adapter_config.json")
    config["base_model_name_or_path"] = base or f"models/checkpoints/{trained.checkpoint.name}"
    weights = folder / "adapter_model.safetensors"
    check_safetensors(weights)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    contents = (card.encode(), text.encode(), weights)
    return Parcel(
        dict(zip(SENT, contents, strict=True)),
        tuple(sorted(path.name for path in folder.iterdir() if path.name not in SENT)),
    )


def base_repository(checkpoint: StartCheckpoint, params: Params) -> str | None:
    """The checkpoint's repository on the Hub; None where it comes from elsewhere."""
    if checkpoint.origin != "hub":
        return None
    checkpoints = params.active.checkpoints
    if not isinstance(checkpoints, HubCheckpoints) or checkpoints.origin != "hub":
        raise UserError(
            f"profile: {params.profile} names no repository, and {checkpoint.name} came from one; "
            "switch to the profile the adapter was trained with"
        )
    return getattr(checkpoints, checkpoint.name.replace("-", "_")).repository


def check_safetensors(path: Path) -> None:
    """Raises `UserError` where the file's name alone says safetensors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            file.keys()
    except SafetensorError as error:
        raise UserError(f"{path}: no safetensors ({error}); run its stage again") from None


def check_secrets(ready: Parcel, message: str) -> None:
    """Raises `UserError` where a file to be sent, or the commit's message, holds a token or a password."""
    texts = {name: _text(held) for name, held in ready.files.items()} | {"--message": message}
    faults = [name for name, text in texts.items() if redact(text) != text]
    if faults:
        raise UserError(f"{', '.join(faults)}: a token or a password stands in it; take it out, and make a new one")


def _text(held: bytes | Path) -> str:
    """All that could be read as text: of weights, the header, which holds names, shapes and notes."""
    if isinstance(held, bytes):
        return held.decode()
    with held.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little")).decode()


def told(ready: Parcel, chosen: argparse.Namespace) -> str:
    """What is sent where, and the card."""
    sizes = {name: len(held) if isinstance(held, bytes) else held.stat().st_size for name, held in ready.files.items()}
    lines = [f"{chosen.repository} ({'public' if chosen.public else 'private'}), branch {chosen.revision}:"]
    lines += [f"  {name:<28}{size:>15,} bytes" for name, size in sizes.items()]
    lines += [f"  {'together':<28}{sum(sizes.values()):>15,} bytes"]
    lines += [f"  stays here: {name}" for name in ready.left]
    card = ready.files["README.md"]
    return "\n".join([*lines, "", card.decode() if isinstance(card, bytes) else ""])


def send(ready: Parcel, repository: str, public: bool, revision: str, message: str) -> str:
    """Create the repository where it is not there, commit the parcel, and give the commit's address."""
    import huggingface_hub
    from huggingface_hub.utils import HfHubHTTPError

    if huggingface_hub.is_offline_mode():
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be sent; unset it")
    if huggingface_hub.get_token() is None:
        raise UserError("no token for the Hub; run `hf auth login`, or set HF_TOKEN to one that can write")
    api = huggingface_hub.HfApi()
    operations = [huggingface_hub.CommitOperationAdd(name, held) for name, held in ready.files.items()]
    try:
        _may_write(api.whoami())
        _open(api, repository, public)
        if revision != MAIN:
            api.create_branch(repository, branch=revision, exist_ok=True)
        return str(api.create_commit(repository, operations, commit_message=message, revision=revision).commit_url)
    except UserError:
        raise
    except HfHubHTTPError as error:
        raise UserError(refused(repository, error.response.status_code)) from None
    except ValueError as error:  # the Hub finds fault with the metadata
        raise UserError(f"{repository}: {' '.join(str(error).split())}") from None
    except Exception as error:  # a dozen kinds: no network, a time-out, a storage that fails
        reason = type(error.__cause__ or error).__name__
        raise UserError(f"{repository}: the Hub cannot be reached ({reason}); be online and try again") from None


def _may_write(who: dict[str, Any]) -> None:
    token = who.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise UserError(f"the token of {who.get('name')} can only read; make one on the Hub that can write")


def _open(api: Any, repository: str, public: bool) -> None:
    """A repository that is as private as was asked for."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        there = api.model_info(repository)
    except RepositoryNotFoundError:
        api.create_repo(repository, private=not public)
        return
    if not there.private and not public:
        raise UserError(f"{repository} is public already; add --public to send there, or choose another")
    if there.private and public:
        print(f"{repository} is private and stays so; its settings on the Hub change that", file=sys.stderr)


def refused(repository: str, status: int) -> str:
    """What an answer of the Hub means, and what to do; nothing of the request is repeated."""
    if status == SIGNED_OUT:
        return "the Hub does not know this token (401); run `hf auth login`, or mend HF_TOKEN"
    if status in (FORBIDDEN, MISSING):
        owner = repository.split("/")[0]
        return f"{repository}: no write access ({status}); choose one of your own, or a token that may write to {owner}"
    return f"{repository}: the Hub answered {status}; try again later"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m captioning.commands.publish",
        description="Send an adapter with its model card to the Hugging Face Hub. Without --upload: show what would be "
        "sent, and send nothing.",
    )
    add = made.add_argument
    add("row", metavar="ROW", help="a row with its seed (mix-1), or alone where it has one seed (mix)")
    add(
        "--repository", required=True, type=repository, metavar="USER/NAME", help="where to; made where it is not there"
    )
    add("--upload", action="store_true", help="really send it")
    add("--public", action="store_true", help="a new repository is for everyone to see (default: private)")
    add("--revision", default=MAIN, metavar="BRANCH", help="made where it is not there (default: %(default)s)")
    add("--message", metavar="TEXT", help="of the commit (default: the adapter's name)")
    return made


def repository(text: str) -> str:
    if not REPOSITORY.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{redact(text)!r}: USER/NAME is wanted, letters, digits, dots, - and _")
    return text


if __name__ == "__main__":
    sys.exit(main())
