"""Write the page of captions: one HTML file that asks for nothing.

1. Its Content-Security-Policy allows images from the file itself, and only the style and the script whose hashes it
   holds. A caption cannot become code, and no request leaves the page.
2. The texts are JSON in which "<" is escaped. The script comes next, so that it shows captions before the browser
   has read the images; each image is the text of an element of its own.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from captioning.report.viewer.content import ShownImage
from captioning.report.viewer.html import render_template
from captioning.report.viewer.marks import Piece
from captioning.report.viewer.rows import ShownRow

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("model.js", "cards.js", "controls.js")  # in this order
DIGITS = 1  # of CIDEr


class CaptionData(TypedDict):
    pieces: Sequence[Piece]
    cider: float
    unshared: Sequence[str]


class ImageData(TypedDict):
    id: str
    source: str
    scene: str
    references: Sequence[str]
    captions: Sequence[CaptionData]


class PageData(TypedDict):
    """The texts and scores that the script reads."""

    rows: Sequence[dict[str, str]]  # key and name
    pair: tuple[str, str]
    images: Sequence[ImageData]


def render_page(
    rows: Sequence[ShownRow], images: Sequence[ShownImage], pair: tuple[str, str], profile: str, test_images: int
) -> str:
    """Return the page as HTML; `images`: all or some of `test_images`; `pair`: keys of the rows that it opens with."""
    style = _read("page.css")
    script = "".join(map(_read, SCRIPTS))
    content = {
        "style": style,
        "script": script,
        "hashes": {"style": hash_content(style), "script": hash_content(script)},
        "profile": profile,
        "test_images": test_images,
        "data": make_page_data(rows, images, pair),
        "webp": [base64.b64encode(image.webp).decode() for image in images],
    }
    return render_template("captioning.report.viewer", "page.html.j2", content) + "\n"


def make_page_data(rows: Sequence[ShownRow], images: Sequence[ShownImage], pair: tuple[str, str]) -> PageData:
    return {
        "rows": [{"key": row.key, "name": row.name} for row in rows],
        "pair": pair,
        "images": [_image_data(image) for image in images],
    }


def _image_data(image: ShownImage) -> ImageData:
    return {
        "id": image.id,
        "source": image.source,
        "scene": image.scene,
        "references": image.references,
        "captions": [
            {"pieces": caption.pieces, "cider": round(caption.cider, DIGITS), "unshared": caption.unshared}
            for caption in image.captions
        ],
    }


def hash_content(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
