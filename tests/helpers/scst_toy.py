"""What SCST's tests share: four pictures by id, a recipe, scorers, and references the model does not say first."""

from typing import Any

from captioning.metrics.cider import CiderD, DocumentFrequencies
from tests.helpers.sampled_captions import PROMPT

IDS = ["p0", "p1", "p2", "p3"]
RECIPE: dict[str, Any] = dict(
    batch=4, samples=5, epochs=6, learning_rate=3e-3, weight_decay=0.0, gradient_clip=1.0, validate_every=3,
    scheduler="constant", temperature=1.0, top_k=0, top_p=1.0, kl=0.0, baseline="greedy", prompt=PROMPT,
    maximum_tokens=16,
)  # fmt: skip


def scorers(references: dict[str, list[str]]) -> tuple[CiderD, CiderD]:
    counted = DocumentFrequencies.from_references([["something else"], *references.values()], eos=True)
    return CiderD(counted, references, eos=True), CiderD(counted, references)


def second_captions(captions: list[list[str]]) -> dict[str, list[str]]:
    """References: each picture's second caption, which the model gives a third of its mass."""
    return {id_: [own[1].removesuffix(" .")] for id_, own in zip(IDS, captions, strict=True)}
