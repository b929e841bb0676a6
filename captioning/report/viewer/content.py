"""Prepare an image for the page: WebP, references, and the caption of each row with its marks."""

import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from PIL import Image

from captioning.images.decoded import FORMATS
from captioning.images.table import CaptionedImage
from captioning.report.viewer.marks import Piece, Tokens, mark_caption, unshared_words
from captioning.report.viewer.rows import ShownRow

MAX_PIXELS = 224  # width and height in the page
VISIBLE_PIXELS = 100  # the page enlarges narrower images until pixels can be seen, so none may be lost
QUALITY = 80  # of WebP: 11 kB for an image of RISC


@dataclass(frozen=True)
class ShownCaption:
    """A caption of a row: pieces by shared n-gram, CIDEr times 100, and its words that no reference has."""

    pieces: Sequence[Piece]
    cider: float
    unshared: Sequence[str]


@dataclass(frozen=True)
class ShownImage:
    """An image with its references, and a caption of each row in the rows' order."""

    id: str
    source: str
    scene: str  # of a drawn image, else ""
    webp: bytes
    references: Sequence[str]
    captions: Sequence[ShownCaption]


def show_image(
    image: CaptionedImage, rows: Sequence[ShownRow], references: Sequence[Tokens], stop_words: Collection[str]
) -> ShownImage:
    """Return what the page shows of an image; `references` are its tokenised captions."""
    scene = str(json.loads(image.facts or "{}").get("scene", ""))
    captions = [_show_caption(row, image.id, references[row.is_reference :], stop_words) for row in rows]
    return ShownImage(image.id, image.source, scene, encode_webp(image.image), image.captions, captions)


def _show_caption(row: ShownRow, id_: str, references: Sequence[Tokens], stop_words: Collection[str]) -> ShownCaption:
    tokens = row.tokens[id_]
    pieces = mark_caption(row.captions[id_], tokens, references, stop_words)
    return ShownCaption(pieces, row.cider[id_], unshared_words(tokens, references, stop_words))


def encode_webp(data: bytes) -> bytes:
    """Return an image file as WebP of at most `MAX_PIXELS`."""
    image = Image.open(io.BytesIO(data), formats=FORMATS).convert("RGB")
    image.thumbnail((MAX_PIXELS, MAX_PIXELS), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=image.width < VISIBLE_PIXELS, quality=QUALITY)
    return buffer.getvalue()
