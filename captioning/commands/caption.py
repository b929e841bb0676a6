"""Caption image files with any trained row: `python -m captioning`.

A file gets the caption that the `generate` stage writes for the same image: from the same checkpoint (its hashes are
checked), NF4 weights, prompt, dtype and decoding. Each image is resized as it is read, with the processor's size and
filter, so that large photographs need no more memory than small ones; the processor then leaves it unchanged.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from captioning.base.errors import UserError
from captioning.base.files import write_text
from captioning.commands.loading import choose_batch, load_row, resize_for_model
from captioning.commands.picture_files import (
    CAPTION_FORMATS,
    FileCaption,
    check_output,
    escape_path,
    find_image_files,
    summarise_notes,
)
from captioning.commands.scene import SCENE_FORMATS, caption_scene
from captioning.commands.trained_rows import find_row
from captioning.data.pictures.read import read_image
from captioning.images.decoded import UnreadableImage, encode_png
from captioning.params.load import load_params
from captioning.params.sections import DEVICE
from captioning.runtime.process import exit_status
from captioning.runtime.progress import progress, write_stdout

Reading = tuple[bytes | None, FileCaption]
BANDS_HELP = "bands of TIFFs as red, green and blue, or one as grey, from 1 (default: by their colours)"
BATCH_HELP = "images captioned at once (default: the recipe's)"
DEVICE_HELP = "cpu, cuda, cuda:N or mps (default: the recipe's)"

EPILOG = """examples:
  python -m captioning harbour.jpg --model mix
  python -m captioning flight-7/ --model mix-1 --format csv --out captions.csv
  python -m captioning sentinel.tif --model mix --bands 4,3,2
  python -m captioning scene.tif --model mix --tiles 256 --out scene.geojson
  python -m captioning scene.tif --model mix --tiles 256 --format html --out scene.html

Without --model, the trained rows are listed. Values of more than 8 bits are stretched, the first of several pages is
used, pixels without data become black, and transparency is laid on white; a note on stderr says so. A file that cannot
be read does not stop the others: it is reported at the end, and the exit status is 1.

A scene is captioned tile by tile, in little memory. If it is interrupted, give the same command again: it goes on."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = make_parser().parse_args(arguments)
    remedy = "nothing was written; give the command again, and it goes on" if options.tiles else "nothing was written"
    return exit_status(lambda: run(options), f"interrupted; {remedy}")


def run(options: argparse.Namespace) -> int:
    """Caption the files that `options` name, and return the exit status. Raises `UserError`."""
    params = load_params()
    row = find_row(options.model, params)
    if options.tiles or options.format in SCENE_FORMATS:
        return caption_scene(options, row, options.maximum_tokens or params.decoding.maximum_tokens)
    files = find_image_files(options.images)
    if not files:
        raise UserError(f"{', '.join(map(escape_path, options.images))}: no JPEG, PNG or TIFF files; name some")
    check_output(options.out, files)
    captions = [FileCaption(escape_path(path), error="no such file") for path in files]
    if any(path.is_file() for path in files):
        limit, device = options.maximum_tokens or params.decoding.maximum_tokens, options.device or row.machine.device
        batch = choose_batch(options.batch, row, device, limit)
        model, processor = load_row(row, device)
        readings = (_read_file(path, processor, options.bands) for path in files)
        stream = caption_files(model, processor, row.prompt, readings, limit, batch)
        captions = list(progress(stream, len(files), "captions"))
    text = CAPTION_FORMATS[options.format or "text"](captions)
    write_text(options.out, text) if options.out else write_stdout(text)
    for line in summarise_notes(captions):
        print(f"note: {line}", file=sys.stderr)
    failures = [caption for caption in captions if caption.error]
    for failure in failures:
        print(f"error: {failure.file}: {failure.error}; fix it or leave it out", file=sys.stderr)
    return 1 if failures else 0


def caption_files(
    model: Any, processor: Any, prompt: str, readings: Iterator[Reading], maximum_tokens: int, batch: int
) -> Iterator[FileCaption]:
    """Yield a caption of each file, or the reason for none, in order; `batch` files are captioned together."""
    import torch

    from captioning.decoding import greedy_captions

    while group := list(islice(readings, batch)):
        images = {index: image for index, (image, _) in enumerate(group) if image is not None}
        stream = greedy_captions(model, processor, list(images.values()), prompt, maximum_tokens, batch)
        try:
            captions = dict(zip(images, stream, strict=True))
        except torch.OutOfMemoryError:
            raise UserError(f"--batch {batch}: too many images at once for {model.device}; choose fewer") from None
        for index, (_, record) in enumerate(group):
            if caption := captions.get(index):
                record = replace(record, caption=caption.text, tokens=caption.tokens, ended=caption.ended)
            yield record


def _read_file(path: Path, processor: Any, bands: tuple[int, ...] | None) -> Reading:
    """Read a file as a PNG of the processor's size, or None and the reason; the caption is still to come."""
    name = escape_path(path)
    try:
        decoded = read_image(path, bands)
    except UnreadableImage as reason:
        return None, FileCaption(name, error=str(reason))
    except OSError as error:
        return None, FileCaption(name, error=(error.strerror or type(error).__name__).lower())
    return encode_png(resize_for_model(decoded.image, processor)), FileCaption(name, notes=decoded.notes)


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m captioning",
        description="Caption your own overhead images with any row that was trained here.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    model = (
        "a row with its seed (mix-1) or alone if it has one seed (mix), zero-shot-CHECKPOINT, or an adapter's folder"
    )
    formats = (
        "text: file, tab, caption; json, csv: a record per file with length, end and notes (default: text); "
        "geojson, html: a map of a scene (--tiles, default: geojson)"
    )
    tokens = "cut captions off at N tokens (default: decoding.maximum_tokens of params.yaml)"
    add("images", nargs="+", type=Path, metavar="IMAGE", help="a JPEG, PNG or TIFF file, or a folder with some")
    add("--model", metavar="NAME", help=model)
    add("--tiles", type=parse_positive_int, metavar="N", help="caption one TIFF as a scene, in tiles of N pixels")
    add("--bands", type=parse_bands, metavar="R,G,B", help=BANDS_HELP)
    add("--format", choices=[*CAPTION_FORMATS, *SCENE_FORMATS], help=formats)
    add("--out", type=Path, metavar="FILE", help="write to FILE, completely or not at all (default: standard output)")
    add("--batch", type=parse_positive_int, metavar="N", help=BATCH_HELP)
    add("--device", type=parse_device, help=DEVICE_HELP)
    add("--maximum-tokens", type=parse_positive_int, metavar="N", help=tokens)
    return parser


def parse_positive_int(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def parse_bands(text: str) -> tuple[int, ...]:
    bands = tuple(map(parse_positive_int, text.split(",")))
    if len(bands) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r}: name one band, or three as 4,3,2")
    return bands


def parse_device(text: str) -> str:
    if not re.fullmatch(DEVICE, text):
        raise argparse.ArgumentTypeError(f"{text!r}: choose cpu, cuda, cuda:N or mps")
    return text
