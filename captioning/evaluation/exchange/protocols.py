"""Score the same captions under protocols that others used, since their CIDEr is not that of Table II.

1. Without PTB tokens, strings are compared as they are written: words end at spaces, case and punctuation count.
2. `SUBSET` images have other document frequencies than all images. They are drawn with a seed, because the ids of a
   split are sorted: their first 500 would be images of the same few scenes.
3. One reference is each image's first. The human row has none left.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from captioning.evaluation.exchange.texts import Captions, Texts
from captioning.evaluation.outputs import ProtocolScores, Rows, RowScores
from captioning.evaluation.predictions import CAPTION_1, HUMAN, summarize_seeds
from captioning.evaluation.rows import Result
from captioning.evaluation.scores import cider_d, first_references, signature
from captioning.images.table import draw_ids

SUBSET, SEED = 500, "protocols"


@dataclass(frozen=True)
class Protocol:
    """A protocol's name and what it changes: strings without PTB tokens, `SUBSET` images, one reference."""

    name: str
    is_raw: bool = False
    is_subset: bool = False
    is_first: bool = False


PROTOCOLS = (
    Protocol("Table II"),
    Protocol("no PTB tokens", is_raw=True),
    Protocol(f"{SUBSET} images", is_subset=True),
    Protocol("one reference", is_first=True),
    Protocol(f"no PTB tokens, {SUBSET} images", is_raw=True, is_subset=True),
    Protocol("no PTB tokens, one reference", is_raw=True, is_first=True),
)


def add_protocols(
    rows: Rows, results: Sequence[Result], texts: Sequence[Texts], maximum_tokens: int
) -> dict[str, RowScores]:
    """Add to each row the signature of each protocol, and CIDEr times 100 over seeds. `texts`: of `results`."""
    scores: dict[str, dict[str, dict[str, float]]] = {}
    signatures: dict[str, dict[str, str]] = {}
    for result, text in zip(results, texts, strict=True):
        limit = None if result.run.kind == "yardstick" else maximum_tokens
        cases = {protocol.name: Case(protocol, result, text) for protocol in _protocols(result)}
        values = {name: case.score() for name, case in cases.items()}
        scores.setdefault(result.run.row, {})[str(result.run.seed)] = values
        signatures[result.run.row] = {name: case.sign(limit) for name, case in cases.items()}
    protocols = {
        row: ProtocolScores(signatures=signatures[row], **dict(summarize_seeds(seeds))) for row, seeds in scores.items()
    }
    return {row: entry.model_copy(update={"protocols": protocols[row]}) for row, entry in rows.items()}


def _protocols(result: Result) -> list[Protocol]:
    """Return the protocols that a row can have and that differ for it."""
    has_subset, has_first = len(result.captions) > SUBSET, result.run.row != HUMAN
    return [item for item in PROTOCOLS if (has_subset or not item.is_subset) and (has_first or not item.is_first)]


@dataclass(frozen=True)
class Case:
    """A run under a protocol."""

    protocol: Protocol
    result: Result
    text: Texts

    def score(self) -> float:
        """Return CIDEr times 100."""
        if not self.protocol.is_raw and not self.protocol.is_subset:
            return self.result.measures["CIDEr" + (CAPTION_1 if self.protocol.is_first else "")]
        captions, references = (self.text if self.protocol.is_raw else self.result).captions, self.references()
        return 100 * cider_d(references, {id_: [captions[id_]] for id_ in references})[0]

    def references(self) -> dict[str, list[str]]:
        """Return the references by image."""
        references: Captions = (self.text if self.protocol.is_raw else self.result).references
        ids = draw_ids(sorted(references), SUBSET if self.protocol.is_subset else 0, SEED)
        chosen = {id_: list(references[id_]) for id_ in ids}
        return first_references(chosen) if self.protocol.is_first else chosen

    def sign(self, maximum_tokens: int | None) -> str:
        """Return the signature."""
        refs = "caption_1" if self.protocol.is_first else ""
        split, tokens = "test:drawn" if self.protocol.is_subset else "test", "raw" if self.protocol.is_raw else "PTB"
        return signature(self.references(), maximum_tokens, split, refs, tokens)
