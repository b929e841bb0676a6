"""The JSON of data/scores, which the stage `evaluate` writes, and later stages and commands read."""

import operator
from collections.abc import Mapping

from pydantic import Field

from captioning.data.outputs import Output
from captioning.evaluation.significance import Difference

Measures = Mapping[str, float]  # by name: CIDEr, length, ended, ...; evaluation/rows.py gives their units


class Summary(Output):
    """Measures of each seed, their means, and their sample standard deviations; None for a single seed."""

    seeds: Mapping[str, Measures]
    mean: Measures
    deviation: Measures | None


class PartScores(Output):
    """The scores of a part of the captioned images alone, over seeds as in `Summary`."""

    images: int
    signature: str  # the protocol
    seeds: Mapping[str, Measures]
    mean: Measures
    deviation: Measures | None


class ProtocolScores(Output):
    """CIDEr times 100 by the name of a protocol that others used, over seeds as in `Summary`."""

    signatures: Mapping[str, str]
    seeds: Mapping[str, Measures]
    mean: Measures
    deviation: Measures | None


NO_PROTOCOLS = ProtocolScores(signatures={}, seeds={}, mean={}, deviation=None)


class Usage(Output):
    """How captions use a group of terms."""

    share: float  # of the captions with one of them, 0 to 1
    terms: int  # different ones that are used
    gain: float | None = None  # of the share over that of the zero-shot row; None without such a row


class RowScores(Output):
    """The scores of a row, over seeds as in `Summary`."""

    kind: str  # zero-shot | adapted | scst | yardstick
    signature: str
    signature_alone: str | None = Field(
        None,
        validation_alias="signature caption_1",
        serialization_alias="signature caption_1",
        exclude_if=operator.not_,
    )  # against each image's first reference
    seeds: Mapping[str, Measures]
    mean: Measures
    deviation: Measures | None
    sources: Mapping[str, PartScores]  # {} if there is one part only
    vocabulary: Mapping[str, Usage]
    protocols: ProtocolScores = NO_PROTOCOLS


Rows = Mapping[str, RowScores]


class Evaluation(Output):
    """data/scores/scores.json: the number of test images, and the scores of each row."""

    images: int
    rows: Rows


class RowTest(Output):
    """The 95 % interval of a row's CIDEr, and letters: rows that share one do not differ; None if not compared."""

    low: float
    high: float
    letters: str | None
    sources: Mapping[str, tuple[float, float]] = Field({}, exclude_if=operator.not_)  # intervals of several parts


class Significance(Output):
    """data/scores/significance.json: the test of each row, and the difference of each pair."""

    measure: str
    resamples: int
    seed: int
    level: float
    rows: Mapping[str, RowTest]
    pairs: tuple[Difference, ...]
