"""Send an adapter with its model card to the Hub, or show them: `python -m captioning.commands.publish`.

1. Without `--upload`, nothing uses the network.
2. Only `SENT` leaves this machine: safetensors, JSON and the card. The configuration names the base by its repository,
   not by a folder of this machine; the weights are sent as they are.
3. A new repository is private unless `--public` is set; without it, a public repository is not changed.
4. The token is the Hub client's (HF_TOKEN, or `hf auth login`). It is never printed or written, and files that hold a
   token are not sent.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from captioning.base.errors import UserError
from captioning.base.json_files import read_json
from captioning.commands.hub_card import Loading, RowResults, make_hub_card
from captioning.commands.trained_rows import find_adapter, read_trained_recipe, strip_seed
from captioning.data.outputs import Manifest, SplitStatistics
from captioning.evaluation.outputs import Evaluation, Significance
from captioning.evaluation.summary import rounded_scores
from captioning.paligemma.safetensors_header import read_shapes
from captioning.params.load import load_params
from captioning.params.packages import MODEL_PACKAGES
from captioning.params.recipe import StartCheckpoint
from captioning.params.sections import HubCheckpoints, HubRepository, Params
from captioning.runtime.paths import IMAGES, SCORES, SIGNIFICANCE, SPLITS
from captioning.runtime.process import exit_status
from captioning.runtime.progress import write_stdout
from captioning.runtime.redaction import redact

if TYPE_CHECKING:  # the Hub's client is loaded if something is sent
    from huggingface_hub import HfApi

SENT = ("README.md", "adapter_config.json", "adapter_model.safetensors")
STATISTICS, MANIFEST = SPLITS / "statistics.json", IMAGES.with_name("manifest.json")
PINS = Path("data/packages/model.txt")  # of the packages that the stages `qlora-train` and `generate` work with
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # names in safetensors and in torch
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
MAIN = "main"
UNAUTHORISED, FORBIDDEN, MISSING = 401, 403, 404  # HTTP


@dataclass(frozen=True)
class Parcel:
    """The files for a repository by name, as content or as a path, and the names of files that stay here."""

    files: dict[str, bytes | Path]
    unsent: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return exit_status(lambda: run(make_parser().parse_args(arguments)), "interrupted")


def run(options: argparse.Namespace) -> int:
    """Show what `options` name, send it if they say so, and return the exit status. Raises `UserError`."""
    parcel = prepare_parcel(options.row, options.repository, load_params())
    check_secrets(parcel, options.message or "")
    write_stdout(f"{describe_parcel(parcel, options)}\n")
    if options.upload:
        message = options.message or f"Adapter {options.row}"
        address = upload_parcel(parcel, options.repository, options.public, options.revision, message)
        write_stdout(f"{address}\n")
    else:
        print("nothing was sent; add --upload to send it", file=sys.stderr)
    return 0


def prepare_parcel(name: str, repository: str, params: Params) -> Parcel:
    """Return the adapter `name` with the card for `repository`. Raises `UserError`."""
    folder = find_adapter(name)
    recipe, row = read_trained_recipe(folder), strip_seed(folder.name)
    if row != recipe.variant:  # the card would have the scores of another row
        raise UserError(f"{folder}: its recipe is that of {recipe.variant}; name the folder {recipe.variant}-SEED")
    if missing := [path for path in (SCORES, SIGNIFICANCE, STATISTICS, MANIFEST, PINS) if not path.is_file()]:
        raise UserError(f"{missing[0]} is missing; `dvc repro` makes it, `dvc pull` fetches it")
    scores = rounded_scores(Evaluation.read(SCORES).rows, Significance.read(SIGNIFICANCE).rows)
    if row not in scores:
        raise UserError(f"{SCORES}: no scores of {row}; run `dvc repro evaluate`")
    splits, manifest = SplitStatistics.read(STATISTICS), Manifest.read(MANIFEST)
    results = RowResults(row, scores, splits, manifest, len(params.seeds), params.data.source == "overhead")
    weights, base = folder / "adapter_model.safetensors", find_base(recipe.checkpoint, params)
    loading = describe_loading(weights, repository, base, params.decoding.maximum_tokens)
    stage_card = (folder / "README.md").read_text(encoding="utf-8")
    card = make_hub_card(stage_card, recipe, folder.name, loading, results)
    config = read_json(folder / "adapter_config.json")
    config["base_model_name_or_path"] = loading.base or f"models/checkpoints/{recipe.checkpoint.name}"
    contents = (card.encode(), (json.dumps(config, indent=2, sort_keys=True) + "\n").encode(), weights)
    unsent = sorted(path.name for path in folder.iterdir() if path.name not in SENT)
    return Parcel(dict(zip(SENT, contents, strict=True)), tuple(unsent))


def describe_loading(weights: Path, repository: str, base: HubRepository | None, maximum_tokens: int) -> Loading:
    """Return how the adapter with these `weights` was loaded for its scores. Raises `UserError` for a pickle."""
    shapes, pins = read_shapes(weights), PINS.read_text(encoding="utf-8").split()
    dtype = ", ".join(sorted({DTYPES.get(dtype, dtype) for dtype, _ in shapes.values()}))
    versions = [pin for pin in pins if pin.partition("==")[0] in (*MODEL_PACKAGES, "pillow")]
    name, revision = (base.repository, base.revision) if base else (None, None)
    return Loading(repository, name, revision, versions, len(shapes), dtype, maximum_tokens)


def find_base(checkpoint: StartCheckpoint, params: Params) -> HubRepository | None:
    """Return the checkpoint's repository and revision on the Hub, or None if it is the miniature's or in a folder."""
    if checkpoint.origin == "miniature":
        return None
    checkpoints = params.active.checkpoints
    if not isinstance(checkpoints, HubCheckpoints):
        raise UserError(
            f"profile: {params.profile} names no repository, and {checkpoint.name} was published in one; "
            "switch to the profile that the adapter was trained with"
        )
    if checkpoints.origin == "folder":
        return None
    base: HubRepository = getattr(checkpoints, checkpoint.name.replace("-", "_"))
    return base


def check_secrets(parcel: Parcel, message: str) -> None:
    """Raise `UserError` if a file to be sent, or the commit's message, holds a token or a password."""
    texts = {name: _extract_text(content) for name, content in parcel.files.items()} | {"--message": message}
    faults = [name for name, text in texts.items() if redact(text) != text]
    if faults:
        raise UserError(f"{', '.join(faults)}: holds a token or a password; remove it there, and revoke it")


def _extract_text(content: bytes | Path) -> str:
    """Return the readable text: of weights, the header with names, shapes and notes."""
    if isinstance(content, bytes):
        return content.decode()
    with content.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little")).decode()


def describe_parcel(parcel: Parcel, options: argparse.Namespace) -> str:
    """Return what is sent where, and the card."""
    sizes = {name: len(part) if isinstance(part, bytes) else part.stat().st_size for name, part in parcel.files.items()}
    lines = [f"{options.repository} ({'public' if options.public else 'private'}), branch {options.revision}:"]
    lines += [f"  {name:<28}{size:>15,} bytes" for name, size in [*sizes.items(), ("together", sum(sizes.values()))]]
    lines += [f"  stays here: {name}" for name in parcel.unsent]
    return "\n".join([*lines, "", _extract_text(parcel.files["README.md"])])


def upload_parcel(parcel: Parcel, repository: str, public: bool, revision: str, message: str) -> str:
    """Create the repository if it does not exist, commit the parcel, and return the commit's address."""
    import huggingface_hub
    from huggingface_hub.utils import HfHubHTTPError

    if huggingface_hub.is_offline_mode():
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be sent; unset it")
    if huggingface_hub.get_token() is None:
        raise UserError("no token for the Hub; run `hf auth login`, or set HF_TOKEN to one that can write")
    api = huggingface_hub.HfApi()
    operations = [huggingface_hub.CommitOperationAdd(name, content) for name, content in parcel.files.items()]
    try:
        user = api.whoami()
        if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
            raise UserError(f"the token of {user.get('name')} can only read; make one on the Hub that can write")
        _open_repository(api, repository, public)
        if revision != MAIN:
            api.create_branch(repository, branch=revision, exist_ok=True)
        return str(api.create_commit(repository, operations, commit_message=message, revision=revision).commit_url)
    except UserError:
        raise
    except HfHubHTTPError as error:
        raise UserError(explain_status(repository, error.response.status_code)) from None
    except ValueError as error:  # the Hub refuses the metadata
        raise UserError(f"{repository}: {' '.join(str(error).split())}") from None
    except Exception as error:  # a dozen kinds: no network, a time-out, a storage that fails
        reason = type(error.__cause__ or error).__name__
        raise UserError(f"{repository}: the Hub cannot be reached ({reason}); be online and try again") from None


def _open_repository(api: "HfApi", repository: str, public: bool) -> None:
    """Create the repository if it does not exist. Raises `UserError` if it is public and `public` is false."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        is_private = api.model_info(repository).private
    except RepositoryNotFoundError:
        api.create_repo(repository, private=not public)
        return
    if not is_private and not public:
        raise UserError(f"{repository} is public already; add --public to send there, or choose another")
    if is_private and public:
        print(f"{repository} is private and stays so; change that in its settings on the Hub", file=sys.stderr)


def explain_status(repository: str, status: int) -> str:
    """Return what an answer of the Hub means, and what to do, without anything of the request."""
    if status == UNAUTHORISED:
        return "the Hub does not know this token (401); run `hf auth login`, or correct HF_TOKEN"
    if status in (FORBIDDEN, MISSING):
        owner = repository.split("/")[0]
        return f"{repository}: no write access ({status}); choose your own, or a token that may write to {owner}"
    return f"{repository}: the Hub answered {status}; try again later"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m captioning.commands.publish",
        description="Send an adapter with its model card to the Hugging Face Hub. Without --upload, show both only.",
    )
    add, target = parser.add_argument, "the repository; it is created if it does not exist"
    add("row", metavar="ROW", help="a row with its seed (mix-1), or alone if it has one seed (mix)")
    add("--repository", required=True, type=parse_repository, metavar="USER/NAME", help=target)
    add("--upload", action="store_true", help="send it")
    add("--public", action="store_true", help="make a new repository public (default: private)")
    add("--revision", default=MAIN, metavar="BRANCH", help="created if it does not exist (default: %(default)s)")
    add("--message", metavar="TEXT", help="of the commit (default: the adapter's name)")
    return parser


def parse_repository(text: str) -> str:
    if not REPOSITORY.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{redact(text)!r} is not USER/NAME of letters, digits, dots, - and _")
    return text


if __name__ == "__main__":
    sys.exit(main())
