"""Write the page of captions: one HTML file that asks for nothing.

1. Its Content-Security-Policy allows images from the file itself, and only the style and the script whose hashes it
   holds. A caption cannot become code, and no request leaves the page.
2. The texts are JSON in which "<" is escaped. The script comes next, so that it shows captions before the browser
   has read the images; each image is the text of an element of its own.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from captioning.report.viewer.content import ShownImage
from captioning.report.viewer.rows import ShownRow

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("model.js", "cards.js", "controls.js")  # in this order
DIGITS = 1  # of CIDEr


def render_page(
    rows: Sequence[ShownRow], images: Sequence[ShownImage], pair: tuple[str, str], profile: str, test_images: int
) -> str:
    """Return the page as HTML; `images`: all or some of `test_images`; `pair`: keys of the rows that it opens with."""
    style = _read("page.css")
    script = "".join(map(_read, SCRIPTS))
    options: Any = {"autoescape": True, "undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=FileSystemLoader(TEMPLATES), **options)
    content = {
        "style": style,
        "script": script,
        "hashes": {"style": content_hash(style), "script": content_hash(script)},
        "profile": profile,
        "test_images": test_images,
        "data": page_data(rows, images, pair),
        "webp": [base64.b64encode(image.webp).decode() for image in images],
    }
    return environment.get_template("page.html.j2").render(content) + "\n"


def page_data(rows: Sequence[ShownRow], images: Sequence[ShownImage], pair: tuple[str, str]) -> dict[str, Any]:
    """Return the texts and scores that the script reads."""
    return {
        "rows": [{"key": row.key, "name": row.name} for row in rows],
        "pair": pair,
        "images": [_image_data(image) for image in images],
    }


def _image_data(image: ShownImage) -> dict[str, Any]:
    captions = [asdict(caption) | {"cider": round(caption.cider, DIGITS)} for caption in image.captions]
    texts = {"id": image.id, "source": image.source, "scene": image.scene, "references": image.references}
    return texts | {"captions": captions}


def content_hash(text: str) -> str:
    """Return the hash by which a Content-Security-Policy allows an inline style or script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _read(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
