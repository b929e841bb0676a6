"""Choose and round what people compare: DVC's metrics, and the scores on a model card.

All other numbers are in data/scores. A metric is a column of `dvc exp show` and a line of `dvc metrics diff`, so these
have only the scores of each row, the gain of SCST's rows, and the leakage of the split that the run used.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from captioning.data.outputs import SplitStatistics
from captioning.evaluation.outputs import Measures, Rows, RowTest
from captioning.evaluation.predictions import CAPTION_1
from captioning.evaluation.scores import METRICS

DVC_METRICS = ("BLEU-4", "METEOR", "ROUGE-L", "length")  # beside CIDEr, which has a file of its own
GAIN = "SCST gain %"  # of a row's test CIDEr over that of the row that it starts from


@dataclass(frozen=True)
class CardScores:
    """A row's scores on a model card: rounded measures and 95 % interval of CIDEr, and the protocols."""

    measures: Measures
    interval: tuple[float, float]
    signature: str
    signature_alone: str | None  # against each image's first reference


def cider_metrics(rows: Rows) -> dict[str, float]:
    """Return the content of metrics/CIDEr.json: CIDEr of each row, the mean over seeds.

    Its keys are the names of rows alone, because `dvc exp show` prints keys as headers of columns.
    """
    return {row: round(entry.mean["CIDEr"], 2) for row, entry in rows.items()}


def score_metrics(rows: Rows, starts: Mapping[str, str], splits: SplitStatistics) -> dict[str, dict[str, float]]:
    """Return the content of metrics/scores.json. `starts`: the start of each row of SCST."""
    means = {row: entry.mean for row, entry in rows.items()}
    scores = {name: {row: round(mean[name], 2) for row, mean in means.items()} for name in DVC_METRICS}
    ciders = {row: (means[row]["CIDEr"], means[start]["CIDEr"]) for row, start in starts.items()}
    gains = {row: round(100 * (after - before) / before, 2) for row, (after, before) in ciders.items() if before}
    return scores | {GAIN: gains, "leakage": {"captions": splits.leaked.captions, "images": splits.leaked.near_images}}


def rounded_scores(rows: Rows, tests: Mapping[str, RowTest]) -> dict[str, CardScores]:
    """Return all scores of each row for a model card: scores and lengths with two decimals, shares with four."""
    two_decimals = {*METRICS, *(name + CAPTION_1 for name in METRICS), "Self-CIDEr", "length"}
    return {
        row: CardScores(
            {name: round(value, 2 if name in two_decimals else 4) for name, value in entry.mean.items()},
            (round(tests[row].low, 2), round(tests[row].high, 2)),
            entry.signature,
            entry.signature_alone,
        )
        for row, entry in rows.items()
    }
