"""`python -m captioning`: captions for one's own pictures, by any trained row.

The library computes and stages write; this is the exception at its edge. A caption is what the `generate` stage writes
for the same picture: same checkpoint (its hashes are checked), same NF4, prompt, dtype and decoding. A picture is
brought to the processor's size as it is read, by the processor's own filter, so that a batch of large photographs takes
no more memory than one of small ones; the processor then leaves it as it is.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from captioning.base.errors import UserError
from captioning.base.files import write_text
from captioning.base.hashes import require_hashes
from captioning.commands.picture_files import FORMATS, PictureCaption, gather, shown, told_notes
from captioning.commands.trained_rows import TrainedRow, find
from captioning.images.pictures import UnreadableImage, encode_png, read_image
from captioning.params.load import DEVICE, load_params
from captioning.runtime.command_line import exit_status
from captioning.runtime.progress import progress, write_stdout

EPILOG = """examples:
  python -m captioning harbour.jpg --model mix
  python -m captioning flight-7/ --model mix-1 --format csv --out captions.csv
  python -m captioning scene.tif --model zero-shot-base --format json

Without --model the rows that are there are listed. 16-bit pictures are scaled, of several pages the first is taken,
what is transparent is laid on white; such decisions are told. A file that is no picture does not stop the others: it is
reported at the end, and the exit status is 1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Caption what the command line names; the exit status."""
    return exit_status(lambda: run(parser().parse_args(arguments)), "interrupted; nothing was written")


def run(chosen: argparse.Namespace) -> int:
    """Everything between the command line and the exit status. Raises `UserError`."""
    params = load_params()
    row = find(chosen.model, params)
    files = gather(chosen.images)
    if not files:
        raise UserError(f"{', '.join(map(shown, chosen.images))}: no JPEG, PNG or TIFF files in there; name some")
    check_out(chosen.out, files)
    limit = chosen.maximum_tokens or params.decoding.maximum_tokens
    captions: list[PictureCaption] = []
    if any(path.is_file() for path in files):
        model, processor = load(row, chosen.device or row.machine.device)
        said = caption_files(model, processor, row.prompt, files, limit, chosen.batch or row.machine.decoding_batch)
        captions = list(progress(said, len(files), "captions"))
    else:
        captions = [PictureCaption(shown(path), error="no such file") for path in files]
    write(FORMATS[chosen.format](captions), chosen.out)
    for line in told_notes(captions):
        print(f"note: {line}", file=sys.stderr)
    failed = [one for one in captions if one.error]
    for one in failed:
        print(f"error: {one.file}: {one.error}; mend it or leave it out", file=sys.stderr)
    return 1 if failed else 0


def load(row: TrainedRow, device: str) -> tuple[Any, Any]:
    """Model and processor of a row, as the `generate` stage loads them."""
    require_hashes(row.checkpoint, row.files)
    import torch  # seconds; what is wrong above is told at once

    from captioning.adapters.lora import load_adapter
    from captioning.compute.seeds import seed_everything
    from captioning.paligemma.model import load_frozen, load_processor

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[device.split(":")[0]]:
        raise UserError(f"--device {device}: torch finds none here; choose another, cpu for example")
    seed_everything(0, row.machine.threads)
    model = load_frozen(row.checkpoint, row.machine.compute, device, row.machine.dequantise)
    processor = load_processor(row.checkpoint)
    return (load_adapter(model, row.adapter) if row.adapter else model), processor


def caption_files(
    model: Any, processor: Any, prompt: str, files: Sequence[Path], maximum_tokens: int, batch: int
) -> Iterator[PictureCaption]:
    """A caption of each file, or why there is none, in order; `batch` files are decoded and captioned together."""
    import torch

    from captioning.decoding import greedy_captions

    for start in range(0, len(files), batch):
        taken = [_read(path, processor) for path in files[start : start + batch]]
        images = [image for image, _ in taken if image is not None]
        try:
            said = iter(list(greedy_captions(model, processor, images, prompt, maximum_tokens, batch)))
        except torch.OutOfMemoryError:
            raise UserError(f"--batch {batch}: too many at once for {model.device}; choose fewer") from None
        for image, one in taken:
            if image is None:
                yield one
                continue
            caption = next(said)
            yield PictureCaption(one.file, caption.text, caption.tokens, caption.ended, one.notes)


def _read(path: Path, processor: Any) -> tuple[bytes | None, PictureCaption]:
    """A file as a PNG of the processor's size, or None and the reason."""
    try:
        picture = read_image(path.read_bytes())
    except UnreadableImage as reason:
        return None, PictureCaption(shown(path), error=str(reason))
    except OSError as error:
        return None, PictureCaption(shown(path), error=(error.strerror or type(error).__name__).lower())
    return encode_png(fitted(picture.image, processor)), PictureCaption(shown(path), notes=picture.notes)


def fitted(image: Any, processor: Any) -> Any:
    """`image` at the processor's size by its own filter, which changes nothing a second time."""
    size = processor.image_processor.size
    return image.resize((size["width"], size["height"]), resample=processor.image_processor.resample)


def check_out(path: Path | None, pictures: Sequence[Path]) -> None:
    """Raises `UserError` where `path` cannot be written, or is one of the pictures, before anything is computed."""
    if path is None:
        return
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"--out {shown(path)}: a file in a folder that is there and can be written to is wanted")
    if path.exists() and any(one.exists() and path.samefile(one) for one in pictures):
        raise UserError(f"--out {shown(path)}: this is one of the pictures; choose another")


def write(text: str, path: Path | None) -> None:
    """To stdout, or to a file that appears whole or not at all."""
    if path is None:
        write_stdout(text)
        return
    try:
        write_text(path, text)
    except OSError as error:
        raise UserError(f"--out {shown(path)}: {(error.strerror or str(error)).lower()}; choose another") from None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m captioning",
        description="Captions for your own overhead pictures, by any row that was trained here.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="a JPEG, PNG or TIFF, or a folder with some in or below")
    add("--model", metavar="NAME", help="a row with its seed (mix-1), a row alone where it has one seed (mix), "
        "zero-shot-CHECKPOINT, or the path of an adapter's folder")  # fmt: skip
    add("--format", choices=FORMATS, default="text", help="text: file, tab, caption; json, csv: a record for every "
        "file, with its length, whether it ended, and notes (default: text)")  # fmt: skip
    add("--out", type=Path, metavar="FILE", help="write there, whole or not at all (default: standard output)")
    add("--batch", type=positive, metavar="N", help="pictures captioned at once (default: the recipe's)")
    add("--device", type=device, help="cpu, cuda, cuda:N or mps (default: the recipe's)")
    add("--maximum-tokens", type=positive, metavar="N", help="where a caption is cut off that has not ended (default: "
        "decoding.maximum_tokens of params.yaml)")  # fmt: skip
    return made


def positive(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def device(text: str) -> str:
    if not re.fullmatch(DEVICE, text):
        raise argparse.ArgumentTypeError(f"{text!r}: choose cpu, cuda, cuda:N or mps")
    return text
