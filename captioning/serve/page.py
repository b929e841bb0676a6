"""Build the page: a place to drop a picture, and what each row says about it.

An uploaded file is in Gradio's temporary folder, which is this process's own, until it has been read; then it is
removed. What the page shows is a small copy inside the page itself.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import gradio
import torch
from markupsafe import Markup
from PIL import Image

from captioning.base.errors import UserError
from captioning.commands.loading import resize_for_model
from captioning.data.pictures.read import read_image
from captioning.images.decoded import DecodedImage, UnreadableImage, encode_png
from captioning.report.viewer.html import make_jpeg_uri, render_template
from captioning.serve.rows import LoadedRow
from captioning.serve.words import WordedCaption, caption_words

STYLE = Path(__file__).with_name("templates") / "page.css"
FONTS = ("system-ui", "sans-serif")  # Gradio's own choice would be fetched from a host of fonts
MEGABYTE = 2**20  # bytes; Gradio counts like this when it says that an upload is too large
SHOWN_PIXELS, JPEG_QUALITY = 640, 88  # of the picture on the page, whose longer side this is
ABANDONED = 60  # seconds after which an upload that nobody asked to caption is removed, looked for as often
# Gradio refuses too large a file in the browser, in words that fade, and would leave the result of the one before.
HIDE_RESULT = """() => {
  const hide = (event) => {
    const file = (event.dataTransfer ?? event.target).files?.[0];
    document.getElementById("result").classList.add("stale");
    document.getElementById("refused").classList.toggle("shown", file?.size > LIMIT);
  };
  for (const kind of ["change", "drop"]) document.getElementById("upload").addEventListener(kind, hide, true);
}"""
SHOW_RESULT = '() => document.getElementById("result").classList.remove("stale")'
RowCaptions = Sequence[tuple[str, WordedCaption]]  # by the name of the row


class Describer:
    """Turn an uploaded file into the part of the page that shows the captions, or the reason why there are none."""

    def __init__(self, rows: Sequence[LoadedRow], maximum_tokens: int, bands: tuple[int, ...] | None) -> None:
        self.rows, self.maximum_tokens, self.bands = rows, maximum_tokens, bands

    def __call__(self, data: bytes) -> str:
        try:
            decoded = read_image(data, self.bands)
            return format_result(decoded, self.caption(decoded.image))
        except UnreadableImage as reason:
            return format_refusal(f"This file cannot be captioned: {reason}. Choose another.")
        except UserError as reason:
            return format_refusal(f"{reason}.")
        except torch.OutOfMemoryError:
            return format_refusal("The device is out of memory. Serve fewer rows, or another device.")

    def caption(self, image: Image.Image) -> RowCaptions:
        """Return the caption of each row, read as `python -m captioning` reads the image."""
        return [(row.name, self._caption(row, image)) for row in self.rows]

    def _caption(self, row: LoadedRow, image: Image.Image) -> WordedCaption:
        encoded = encode_png(resize_for_model(image, row.processor))
        return caption_words(row.model, row.processor, encoded, row.prompt, self.maximum_tokens)


def build_page(describe: Callable[[bytes], str], title: str, uploads: Path, megabytes: int) -> gradio.Blocks:
    """Return the page; `uploads` is Gradio's temporary folder."""
    limits = f"JPEG, PNG, TIFF, WebP, GIF or BMP, at most {megabytes} MB; removed as soon as it has been read"
    with gradio.Blocks(title="Captions", analytics_enabled=False, delete_cache=(ABANDONED, ABANDONED)) as page:
        gradio.Markdown(f"# Captions\n{title}\n\nA picture: {limits}.")
        upload = gradio.File(label="Picture", type="binary", elem_id="upload", height=140)
        gradio.HTML(format_refusal(f"This file is larger than {megabytes} MB. Choose another."), elem_id="refused")
        result = gradio.HTML(elem_id="result")
        page.load(js=HIDE_RESULT.replace("LIMIT", str(megabytes * MEGABYTE)))
        upload.upload(
            partial(describe_upload, describe, uploads),
            inputs=upload,
            outputs=[upload, result],
            api_visibility="private",
        ).then(js=SHOW_RESULT)
    return page


def describe_upload(describe: Callable[[bytes], str], uploads: Path, data: bytes | None) -> tuple[None, str]:
    """Return an empty place for the next upload, and the result; the uploaded file is removed in any case."""
    if data is None:
        return None, ""
    remove_upload(uploads, data)
    return None, describe(data)


def remove_upload(uploads: Path, data: bytes) -> None:
    """Remove the uploaded files whose content is `data`, each with its folder."""
    for path in uploads.glob("*/*"):
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            shutil.rmtree(path.parent, ignore_errors=True)


def format_result(decoded: DecodedImage, captions: RowCaptions) -> str:
    """Return the picture and its captions as HTML."""
    picture = decoded.image.copy()
    picture.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS))
    content = {
        "picture": make_jpeg_uri(picture, JPEG_QUALITY),
        "width": decoded.image.width,
        "height": decoded.image.height,
        "notes": decoded.notes,
        "captions": captions,
        "percent": format_percent,
    }
    return render_template("captioning.serve", "result.html.j2", content)


def format_refusal(text: str) -> str:
    return Markup('<div class="served"><p class="refusal" role="alert">{}</p></div>').format(text)


def format_percent(probability: float) -> str:
    """Format with whole percent, but two digits where a whole number would be 0 or 1, and no 100 that is none."""
    percent = 100 * probability
    return f"{percent:.2g}" if percent < 9.5 else f"{min(math.floor(percent + 0.5), 99 if probability < 1 else 100)}"
