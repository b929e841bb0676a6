"""A page of invented captions: three rows, texts that are hostile to HTML, and scores that leave no tie in an order."""

import io
import random
from pathlib import Path

from PIL import Image

from captioning.images.table import CaptionedImage
from captioning.report.viewer.content import ShownImage, show_image
from captioning.report.viewer.page import render_page
from captioning.report.viewer.rows import ShownRow

HOSTILE = "</script><script>document.title = 'broken'</script> <!-- \"quoted\" & 'single' <img src=x onerror=alert(1)>"
ARABIC, EMOJI = "طائرة قرب المبنى", "two boats 🚤 near a pier 👩🏽‍🚀"
WORDS = ("boat", "pier", "red", "roof", "green", "tree", "street", "road")
STOP_WORDS = ("a", "near", "the")
PAIR = ("mix-1", "scst-mix-greedy-1")


def shown_rows(number: int = 45) -> tuple[list[ShownRow], list[ShownImage]]:
    """Return three rows and `number` images of two sources and three scenes; the first captions are hostile."""
    draw = random.Random(1)
    ids = [f"d_{k}" for k in range(number - 1)] + ["odd &id#=\"'<b>"]
    references = {id_: [f"a {draw.choice(WORDS)} near the {draw.choice(WORDS)} ." for _ in range(3)] for id_ in ids}
    rows = []
    for key in ("zero-shot-base", *PAIR):
        captions = {id_: f"a {draw.choice(WORDS)} near a {draw.choice(WORDS)} ." for id_ in ids}
        captions |= dict(zip(ids, (HOSTILE, ARABIC, EMOJI, ""), strict=False))
        tokens = {id_: caption.lower().rstrip(" .").split() for id_, caption in captions.items()}
        rows.append(ShownRow(key, f"Row {key}", captions, tokens, {id_: 300 * draw.random() for id_ in ids}))
    images = [
        show_image(
            CaptionedImage(
                id=id_,
                source=("NWPU", "UCM")[number % 2],
                split="",
                image=png(number),
                path="",
                captions=tuple(references[id_]),
                facts=f'{{"scene": "scene {number % 3}"}}',
            ),
            rows,
            [reference.rstrip(" .").split() for reference in references[id_]],
            STOP_WORDS,
        )
        for number, id_ in enumerate(ids)
    ]
    return rows, images


def png(number: int, side: int = 48) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (5 * number % 256, 90, 60)).save(buffer, "PNG")
    return buffer.getvalue()


def write_page(path: Path) -> tuple[list[ShownRow], list[ShownImage]]:
    rows, images = shown_rows()
    path.write_text(render_page(rows, images, PAIR, "miniature", 60), encoding="utf-8")
    return rows, images
