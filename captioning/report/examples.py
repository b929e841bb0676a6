"""Choose images, rows and captions for Figures 4 to 7.

Deliberate difference from the paper: a seed draws the test images, from as many different scenes as figures (sources,
for real images). Nobody looks at captions first.
"""

import io
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from captioning.evaluation.predictions import read_predictions
from captioning.images.decoded import FORMATS
from captioning.images.table import CaptionedImage, read_ids, read_images, read_table
from captioning.report.figures import draw_example
from captioning.report.table import ScoreRow
from captioning.runtime.paths import IMAGES, PREDICTIONS, SPLITS

EXAMPLES = 4  # the paper's Figures 4-7
SEED = "figures 4-7"  # random.Random hashes a string to the same number on every machine
REFERENCE = "Reference C1"


@dataclass(frozen=True)
class Example:
    """Figure `number`: its title, the image's file, and pairs (row, caption) from top to bottom, the reference last."""

    number: int
    title: str
    encoded: bytes
    captions: tuple[tuple[str, str], ...]

    def draw(self) -> Figure:
        image = Image.open(io.BytesIO(self.encoded), formats=FORMATS)
        return draw_example(image, self.captions, self.title)

    @property
    def heading(self) -> str:
        return f"Figure {self.number}. {self.title}"

    @property
    def text(self) -> str:
        """Return the figure's captions, for readers who cannot see it."""
        return "; ".join(f"{row}: “{caption}”" for row, caption in self.captions)


def draw_examples(groups: Mapping[str, Sequence[str]], number: int = EXAMPLES, seed: str = SEED) -> list[str]:
    """Draw `number` ids, from different groups as far as possible; the order of groups and ids has no effect."""
    rng = random.Random(seed)
    remaining = {name: rng.sample(sorted(ids), len(ids)) for name, ids in sorted(groups.items()) if ids}
    names = rng.sample(sorted(remaining), len(remaining))
    chosen: list[str] = []
    while len(chosen) < number and any(remaining.values()):
        chosen += [remaining[name].pop() for name in names if remaining[name]][: number - len(chosen)]
    return chosen


def group_images(ids: Sequence[str], sources: Sequence[str], facts: Sequence[str]) -> dict[str, list[str]]:
    """Group ids by `name_scene`."""
    groups: dict[str, list[str]] = {}
    for id_, source, fact in zip(ids, sources, facts, strict=True):
        groups.setdefault(name_scene(source, fact), []).append(id_)
    return groups


def name_scene(source: str, fact: str) -> str:
    """Return the scene of a drawn image, the source of a real one. `fact`: JSON of what was drawn, or ""."""
    return str(json.loads(fact)["scene"] if fact else source)


def choose_rows(number: int, rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Return the rows in Figure `number` (4 to 7): the paper's if they exist, and one of SCST."""
    refined = [row.key for row in rows if row.key.startswith("scst-")]
    scst = "scst-mix-greedy" if "scst-mix-greedy" in refined else next(iter(refined), "")
    keys = ("zero-shot-base", "full-adapter") if number == 4 else ("zero-shot-base", "base-r16", "mix", scst)
    models = [row for row in rows if row.paper or row.share is not None or row.key.startswith("zero-shot")]
    return [row for row in rows if row.key in keys] or models[:3]


def read_examples(rows: Sequence[ScoreRow], seed: int) -> dict[str, Example]:
    """Return Figures 4 to 7 by name, with the captions of the adapters of `seed`."""
    ids, captioned = (read_ids(SPLITS / f"{name}.txt") for name in ("test", "captioned"))
    table = read_table(IMAGES, ids, ["id", "source", "facts"]).to_pydict()
    drawn = draw_examples(group_images(table["id"], table["source"], table["facts"]))

    def read_captions(row: ScoreRow) -> dict[str, str]:
        name = row.key if row.key.startswith("zero-shot") else f"{row.key}-{seed}"
        predictions = read_predictions(PREDICTIONS / f"{name}.jsonl", captioned)
        return {record.id: record.caption for record in predictions}

    return make_examples(read_images(IMAGES, drawn), rows, read_captions)


def make_examples(
    images: Sequence[CaptionedImage], rows: Sequence[ScoreRow], read_captions: Callable[[ScoreRow], Mapping[str, str]]
) -> dict[str, Example]:
    """Return Figures 4 and following by name; `read_captions` returns a row's captions by image id."""
    examples = {}
    for number, image in enumerate(images, start=4):
        captions = [(row.name, read_captions(row)[image.id]) for row in choose_rows(number, rows)]
        title = f"Image {image.id} ({name_scene(image.source, image.facts)})"
        lines = (*captions, (REFERENCE, image.captions[0]))
        examples[f"figure-{number}"] = Example(number, title, image.image, lines)
    return examples
