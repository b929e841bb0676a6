"""What SCST's tests share: four pictures by id, a recipe, scorers, and references the model does not say first."""

from captioning.metrics.cider import CiderD, DocumentFrequencies
from captioning.scst.refine import Scorers

IDS = ["p0", "p1", "p2", "p3"]


def make_scorers(references: dict[str, list[str]]) -> Scorers:
    counted = DocumentFrequencies.from_references([["something else"], *references.values()], eos=True)
    return Scorers(CiderD(counted, references, eos=True), CiderD(counted, references))


def second_captions(captions: list[list[str]]) -> dict[str, list[str]]:
    """References: each picture's second caption, which the model gives a third of its mass."""
    return {id_: [own[1].removesuffix(" .")] for id_, own in zip(IDS, captions, strict=True)}
