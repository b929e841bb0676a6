"""Figures 4 to 7: which test images, which rows, and what they said.

Deliberate difference from the paper: the test images are drawn by a seed, not chosen by eye, from as many different
scenes (sources, where none is known) as there are figures; nobody looked at their captions first.
"""

import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from captioning.images.pictures import FORMATS
from captioning.report.table import Row

EXAMPLES = 4  # the paper's Figures 4-7
DRAW = "figures 4-7"  # seed of the draw; random.Random hashes a string the same on every machine
REFERENCE = "Reference C1"


@dataclass(frozen=True)
class Example:
    """Figure `number`: its title, the picture's file, and (whose, caption) from top to bottom, the reference last."""

    number: int
    title: str
    encoded: bytes
    lines: tuple[tuple[str, str], ...]

    @property
    def picture(self) -> Image.Image:
        return Image.open(io.BytesIO(self.encoded), formats=FORMATS)

    @property
    def heading(self) -> str:
        return f"Figure {self.number}. {self.title}"

    @property
    def text(self) -> str:
        """What the figure says, for who cannot see it."""
        return "; ".join(f"{who}: “{what}”" for who, what in self.lines)


def draw_examples(groups: Mapping[str, Sequence[str]], number: int = EXAMPLES, seed: str = DRAW) -> list[str]:
    """`number` ids, each of another group as far as there are; `groups`: group to its ids, in any order."""
    draw = random.Random(seed)
    left = {name: draw.sample(sorted(ids), len(ids)) for name, ids in sorted(groups.items()) if ids}
    names = draw.sample(sorted(left), len(left))
    chosen: list[str] = []
    while len(chosen) < number and any(left.values()):
        chosen += [left[name].pop() for name in names if left[name]][: number - len(chosen)]
    return chosen


def groups(images: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Ids by `scene_or_source`; `images`: rows of `images.parquet`."""
    found: dict[str, list[str]] = {}
    for image in images:
        found.setdefault(scene_or_source(image), []).append(image["id"])
    return found


def scene_or_source(image: Mapping[str, Any]) -> str:
    """What an image is of: the scene of a drawn one, the source of a real one. `image`: a row of `images.parquet`."""
    return str(json.loads(image["facts"])["scene"] if image["facts"] else image["source"])


def example_rows(number: int, rows: Sequence[Row]) -> list[Row]:
    """The rows that Figure `number` (4 to 7) compares: the paper's, and SCST's against its baseline, as far as there
    are."""
    refined = [row.key for row in rows if row.key.startswith("scst-")]
    shown = [key for key in refined if key == "scst-mix-greedy"] or refined[:1]
    keys = ("zero-shot-base", "full-adapter") if number == 4 else ("zero-shot-base", "base-r16", "mix", *shown)
    models = [row for row in rows if row.paper or row.share is not None or row.key.startswith("zero-shot")]
    return [row for row in rows if row.key in keys] or models[:3]


def examples(
    images: Sequence[Mapping[str, Any]], rows: Sequence[Row], captions: Callable[[Row], Mapping[str, str]]
) -> dict[str, Example]:
    """Figures 4 on by name, of `images` (rows of `images.parquet`); `captions`: what a row said, by image id."""
    found = {}
    for number, image in enumerate(images, start=4):
        said = [(row.name, captions(row)[image["id"]]) for row in example_rows(number, rows)]
        lines = (*said, (REFERENCE, image["captions"][0]))
        title = f"Image {image['id']} ({scene_or_source(image)})"
        found[f"figure-{number}"] = Example(number, title, image["image"]["bytes"], lines)
    return found
