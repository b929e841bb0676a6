"""Merge a row's adapter into the unquantised weights: `python -m captioning.export ROW --merged FOLDER`.

An adapter that was trained on NF4 weights is another model on the weights before quantisation. So the test images are
captioned with the merged model too, and its card compares both: the share of equal captions, and CIDEr.
"""

import argparse
import gc
from collections.abc import Sequence
from pathlib import Path

from captioning.adapters.folder import WEIGHTS
from captioning.base.errors import UserError
from captioning.base.files import atomic_folder, write_text
from captioning.base.hashes import require_hashes, sha256
from captioning.commands.caption import BATCH_HELP, DEVICE_HELP, parse_device, parse_positive_int
from captioning.commands.loading import choose_batch, require_device
from captioning.commands.picture_files import require_writable
from captioning.commands.publish import find_base
from captioning.commands.trained_rows import ADAPTERS, TrainedRow, find_row, read_trained_recipe
from captioning.export.card import Merged, make_card
from captioning.export.comparison import Scored, compare, read_scored
from captioning.params.load import load_params
from captioning.params.sections import Params
from captioning.runtime.process import exit_status
from captioning.runtime.progress import write_stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = make_parser().parse_args(arguments)
    return exit_status(lambda: run(options), "interrupted; nothing was written")


def run(options: argparse.Namespace) -> int:
    """Write the merged model that `options` name, with its card. Raises `UserError`."""
    params = load_params()
    row = find_row(options.row, params)
    adapter = require_scored(row)
    checkpoint = read_trained_recipe(adapter).checkpoint
    base = find_base(checkpoint, params)
    require_writable("--merged", options.merged, "new folder")
    require_hashes(row.checkpoint, row.files)
    scored = read_scored(row.name, options.images)
    with atomic_folder(options.merged) as folder:
        captions = merge_and_caption(row, options, folder, scored, params)
        weights, is_gemma = sha256(adapter / WEIGHTS), checkpoint.origin == "published"
        merged = Merged(row, weights, base.repository if base else None, is_gemma, params.decoding.maximum_tokens)
        comparison = compare(scored, captions)
        write_text(folder / "README.md", make_card(merged, comparison))
    write_stdout(f"{options.merged}: {comparison}\n")
    return 0


def merge_and_caption(
    row: TrainedRow, options: argparse.Namespace, folder: Path, scored: Scored, params: Params
) -> list[str]:
    """Write the merged model to `folder`, load it from there, and return its captions of the scored images."""
    from captioning.export.merge import caption_images, merge_adapter

    device, limit = options.device or row.machine.device, params.decoding.maximum_tokens
    require_device(device)
    batch = choose_batch(options.batch, row, device, limit)
    merge_adapter(row, device, folder)
    gc.collect()  # the first model is gone before the second is loaded
    return caption_images(row, device, folder, scored.ids, limit, batch)


def require_scored(row: TrainedRow) -> Path:
    """Return the row's adapter. Raises `UserError` if it has none, or if its captions were not scored here."""
    if row.adapter is None:
        raise UserError(
            f"{row.name}: a checkpoint without an adapter, so there is nothing to merge; name a trained row"
        )
    if row.adapter.parent != ADAPTERS:
        raise UserError(f"{row.adapter}: only rows of this project were scored, so nothing can be compared; name one")
    return row.adapter


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m captioning.export",
        description="Merge a row's adapter into the unquantised weights, and compare its captions with those scored.",
    )
    add = parser.add_argument
    images = "compare on N test images, a seeded sample (default: on all of them)"
    add("row", metavar="ROW", help="a row with its seed (mix-1), or alone if it has one seed (mix)")
    add("--merged", required=True, type=Path, metavar="FOLDER", help="a new folder for the merged model")
    add("--images", type=parse_positive_int, metavar="N", help=images)
    add("--batch", type=parse_positive_int, metavar="N", help=BATCH_HELP)
    add("--device", type=parse_device, help=DEVICE_HELP)
    return parser
