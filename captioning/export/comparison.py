"""Compare the captions of a merged model with those that were scored: equal captions, and CIDEr of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from captioning.base.errors import UserError
from captioning.base.json_files import read_map
from captioning.evaluation.predictions import read_predictions
from captioning.images.table import draw_ids, read_ids
from captioning.metrics.bootstrap import interval, resampled_means
from captioning.metrics.cider import CiderD, DocumentFrequencies
from captioning.metrics.ptb import tokenize
from captioning.runtime.paths import IMAGES, PREDICTIONS, SPLITS, TOKENS

CAPTIONED, TEST = SPLITS / "captioned.txt", SPLITS / "test.txt"
NEEDED = (IMAGES, CAPTIONED, TEST, TOKENS)
SEED = 1  # of the resamples


@dataclass(frozen=True)
class Scored:
    """Test images with the captions that were scored, and the tokenised references of each image."""

    ids: tuple[str, ...]
    captions: tuple[str, ...]
    references: Mapping[str, Sequence[str]]
    total: int  # test images of the data set


@dataclass(frozen=True)
class MergeComparison:
    """CIDEr is times 100; `difference` is the merged model's minus the adapter's, `low` to `high` its 95 % interval."""

    images: int
    total: int
    equal: int  # captions
    adapter: float
    merged: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        return self.merged - self.adapter

    def __str__(self) -> str:
        captions = (
            f"{self.equal:,} of {self.images:,} captions ({self.equal / self.images:.1%}) are those of the adapter"
        )
        change = f"{self.difference:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"
        return f"{captions}; CIDEr {self.merged:.2f}, with the adapter {self.adapter:.2f}, difference {change}"


def read_scored(row: str, images: int | None) -> Scored:
    """Read the row's captions of the test images, or of `images` of them. Raises `UserError` if they are missing."""
    predictions = PREDICTIONS / f"{row}.jsonl"
    if missing := [path for path in (*NEEDED, predictions) if not path.is_file()]:
        raise UserError(f"{missing[0]} is missing; `dvc repro` makes it, `dvc pull` fetches it")
    captioned, test = (read_ids(path) for path in (CAPTIONED, TEST))
    captions = {record.id: record.caption for record in read_predictions(predictions, captioned)}
    ids = tuple(draw_ids(test, images or 0, "merged"))
    tokens: dict[str, list[str]] = read_map(TOKENS, *ids)
    references = {id_: tokens[id_] for id_ in ids}
    return Scored(ids, tuple(captions[id_] for id_ in ids), references, len(test))


def compare(scored: Scored, captions: Sequence[str]) -> MergeComparison:
    """Score both sets of captions with the document frequencies of their references, as the table does."""
    scorer = CiderD(DocumentFrequencies.from_references(scored.references.values()), scored.references)
    texts = tokenize([*scored.captions, *captions])
    count = len(scored.ids)
    adapter, merged = (100 * scorer.scores(scored.ids, part) for part in (texts[:count], texts[count:]))
    low, high = interval(resampled_means(np.stack([merged - adapter]), seed=SEED)[0])
    equal = sum(first == second for first, second in zip(scored.captions, captions, strict=True))
    return MergeComparison(count, scored.total, equal, float(adapter.mean()), float(merged.mean()), low, high)
