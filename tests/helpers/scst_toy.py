"""Shared parts of SCST's tests: the ids of four images, scorers, and references that the model says rarely."""

from captioning.metrics.cider import CiderD, DocumentFrequencies
from captioning.scst.scorers import Scorers

IDS = ["p0", "p1", "p2", "p3"]


def make_scorers(references: dict[str, list[str]]) -> Scorers:
    frequencies = DocumentFrequencies.from_references([["something else"], *references.values()], eos=True)
    return Scorers(CiderD(frequencies, references, eos=True), CiderD(frequencies, references))


def second_captions(captions: list[list[str]]) -> dict[str, list[str]]:
    """Return each image's second caption, which has a third of the model's probability."""
    return {id_: [texts[1].removesuffix(" .")] for id_, texts in zip(IDS, captions, strict=True)}
