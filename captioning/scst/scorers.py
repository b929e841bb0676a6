"""The CIDEr-D scorers of SCST, with the document frequencies of the training split."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from captioning.base.json_files import read_map
from captioning.metrics.cider import CiderD, DocumentFrequencies


class Scorers(NamedTuple):
    """CIDEr-D of samples, with `<eos>`, and of validation captions, without."""

    reward: CiderD
    validation: CiderD


def read_scorers(ids: Sequence[str]) -> Scorers:
    tokens = read_map(Path("data/references/tokens.json"))
    frequencies = DocumentFrequencies(**read_map(Path("data/references/document_frequencies.json")))
    references = {id_: tokens[id_] for id_ in ids}
    return Scorers(CiderD(frequencies, references, eos=True), CiderD(frequencies, references, eos=False))
