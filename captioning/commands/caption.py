"""Caption image files with any trained row: `python -m captioning`.

A file gets the caption that the `generate` stage writes for the same image: from the same checkpoint (its hashes are
checked), NF4 weights, prompt, dtype and decoding. Each image is resized as it is read, with the processor's size and
filter, so that large photographs need no more memory than small ones; the processor then leaves it unchanged.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from captioning.base.errors import UserError
from captioning.base.files import write_text
from captioning.base.hashes import require_hashes
from captioning.commands.picture_files import FORMATS, FileCaption, find_image_files, printable_path, summarise_notes
from captioning.commands.trained_rows import TrainedRow, find_row
from captioning.images.pictures import UnreadableImage, encode_png, read_image
from captioning.params.load import load_params
from captioning.params.sections import DEVICE
from captioning.runtime.command_line import exit_status
from captioning.runtime.progress import progress, write_stdout

EPILOG = """examples:
  python -m captioning harbour.jpg --model mix
  python -m captioning flight-7/ --model mix-1 --format csv --out captions.csv
  python -m captioning scene.tif --model zero-shot-base --format json

Without --model, the trained rows are listed. 16-bit images are scaled, the first of several pages is used, and
transparency is laid on white; a note on stderr says so. A file that cannot be read does not stop the others: it is
reported at the end, and the exit status is 1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    return exit_status(lambda: run(parser().parse_args(arguments)), "interrupted; nothing was written")


def run(options: argparse.Namespace) -> int:
    """Caption the files that `options` name, and return the exit status. Raises `UserError`."""
    params = load_params()
    row = find_row(options.model, params)
    files = find_image_files(options.images)
    if not files:
        raise UserError(f"{', '.join(map(printable_path, options.images))}: no JPEG, PNG or TIFF files; name some")
    check_output(options.out, files)
    captions = [FileCaption(printable_path(path), error="no such file") for path in files]
    if any(path.is_file() for path in files):
        model, processor = load_row(row, options.device or row.machine.device)
        limit = options.maximum_tokens or params.decoding.maximum_tokens
        batch = options.batch or row.machine.decoding_batch
        stream = caption_files(model, processor, row.prompt, files, limit, batch)
        captions = list(progress(stream, len(files), "captions"))
    text = FORMATS[options.format](captions)
    write_text(options.out, text) if options.out else write_stdout(text)
    for line in summarise_notes(captions):
        print(f"note: {line}", file=sys.stderr)
    failures = [caption for caption in captions if caption.error]
    for failure in failures:
        print(f"error: {failure.file}: {failure.error}; fix it or leave it out", file=sys.stderr)
    return 1 if failures else 0


def load_row(row: TrainedRow, device: str) -> tuple[Any, Any]:
    """Load a row's model and processor as the `generate` stage does."""
    require_hashes(row.checkpoint, row.files)
    import torch  # takes seconds, so user errors above come first

    from captioning.adapters.lora import load_adapter
    from captioning.compute.seeds import seed_everything
    from captioning.paligemma.model import load_frozen, load_processor

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[device.split(":")[0]]:
        raise UserError(f"--device {device}: torch finds none; choose another, for example cpu")
    seed_everything(0, row.machine.threads)
    model = load_frozen(row.checkpoint, row.machine.compute, device, row.machine.dequantise)
    processor = load_processor(row.checkpoint)
    return (load_adapter(model, row.adapter) if row.adapter else model), processor


def caption_files(
    model: Any, processor: Any, prompt: str, files: Sequence[Path], maximum_tokens: int, batch: int
) -> Iterator[FileCaption]:
    """Yield a caption of each file, or the reason for none, in order; `batch` files are captioned together."""
    import torch

    from captioning.decoding import greedy_captions

    for start in range(0, len(files), batch):
        readings = [_read_file(path, processor) for path in files[start : start + batch]]
        images = {index: image for index, (image, _) in enumerate(readings) if image is not None}
        stream = greedy_captions(model, processor, list(images.values()), prompt, maximum_tokens, batch)
        try:
            captions = dict(zip(images, stream, strict=True))
        except torch.OutOfMemoryError:
            raise UserError(f"--batch {batch}: too many images at once for {model.device}; choose fewer") from None
        for index, (_, record) in enumerate(readings):
            if caption := captions.get(index):
                record = replace(record, caption=caption.text, tokens=caption.tokens, ended=caption.ended)
            yield record


def _read_file(path: Path, processor: Any) -> tuple[bytes | None, FileCaption]:
    """Read a file as a PNG of the processor's size, or None and the reason; the caption is still to come."""
    name = printable_path(path)
    try:
        decoded = read_image(path.read_bytes())
    except UnreadableImage as reason:
        return None, FileCaption(name, error=str(reason))
    except OSError as error:
        return None, FileCaption(name, error=(error.strerror or type(error).__name__).lower())
    return encode_png(resize_for_model(decoded.image, processor)), FileCaption(name, notes=decoded.notes)


def resize_for_model(image: Any, processor: Any) -> Any:
    """Resize `image` as the processor would, which then changes nothing more."""
    size = processor.image_processor.size
    return image.resize((size["width"], size["height"]), resample=processor.image_processor.resample)


def check_output(path: Path | None, images: Sequence[Path]) -> None:
    """Raise `UserError` before the work begins if `path` cannot be written, or is one of the images."""
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--out {printable_path(path)}: not a file in an existing, writable folder; choose another")
    if path.exists() and any(image.exists() and path.samefile(image) for image in images):
        raise UserError(f"--out {printable_path(path)}: this is one of the images; choose another")


def parser() -> argparse.ArgumentParser:
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
    formats = "text: file, tab, caption; json, csv: a record per file with length, end and notes (default: text)"
    tokens = "cut captions off at N tokens (default: decoding.maximum_tokens of params.yaml)"
    add("images", nargs="+", type=Path, metavar="IMAGE", help="a JPEG, PNG or TIFF file, or a folder with some")
    add("--model", metavar="NAME", help=model)
    add("--format", choices=FORMATS, default="text", help=formats)
    add("--out", type=Path, metavar="FILE", help="write to FILE, completely or not at all (default: standard output)")
    add("--batch", type=positive_int, metavar="N", help="images captioned at once (default: the recipe's)")
    add("--device", type=device_name, help="cpu, cuda, cuda:N or mps (default: the recipe's)")
    add("--maximum-tokens", type=positive_int, metavar="N", help=tokens)
    return parser


def positive_int(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def device_name(text: str) -> str:
    if not re.fullmatch(DEVICE, text):
        raise argparse.ArgumentTypeError(f"{text!r}: choose cpu, cuda, cuda:N or mps")
    return text
