"""Choose and round what people compare: DVC's metrics, and the scores on a model card.

All other numbers are in data/scores. A metric is a column of `dvc exp show` and a line of `dvc metrics diff`, so these
have only the scores of each row, the gain of SCST's rows, and the leakage of the split that the run used.
"""

from collections.abc import Mapping
from typing import Any

from captioning.evaluation.predictions import CAPTION_1
from captioning.evaluation.scores import METRICS

COMPARED = ("BLEU-4", "METEOR", "ROUGE-L", "length")  # beside CIDEr, which has a file of its own
GAIN = "SCST gain %"  # of a row's test CIDEr over that of the row that it starts from
Rows = Mapping[str, Mapping[str, Any]]  # of data/scores/scores.json


def cider_metrics(rows: Rows) -> dict[str, float]:
    """Return the content of metrics/CIDEr.json: CIDEr of each row, the mean over seeds.

    Its keys are the names of rows alone, because `dvc exp show` prints keys as headers of columns.
    """
    return {row: round(entry["mean"]["CIDEr"], 2) for row, entry in rows.items()}


def score_metrics(rows: Rows, starts: Mapping[str, str], splits: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Return the content of metrics/scores.json.

    `starts`: the start of each row of SCST. `splits`: data/splits/statistics.json.
    """
    means = {row: entry["mean"] for row, entry in rows.items()}
    scores = {name: {row: round(mean[name], 2) for row, mean in means.items()} for name in COMPARED}
    ciders = {row: (means[row]["CIDEr"], means[start]["CIDEr"]) for row, start in starts.items()}
    gains = {row: round(100 * (after - before) / before, 2) for row, (after, before) in ciders.items() if before}
    leakage = splits["leakage"][splits["method"]]["groups_whole"]
    return scores | {GAIN: gains, "leakage": {"captions": leakage["captions"], "images": leakage["near_images"]}}


def rounded_scores(rows: Rows, intervals: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return all scores of each row for a model card: scores and lengths with two decimals, shares with four.

    `intervals` are the rows of data/scores/significance.json.
    """
    two_decimals = {*METRICS, *(name + CAPTION_1 for name in METRICS), "Self-CIDEr", "length"}
    return {
        row: {
            **{name: round(value, 2 if name in two_decimals else 4) for name, value in entry["mean"].items()},
            **{f"CIDEr {end}": round(intervals[row][end], 2) for end in ("low", "high")},
            **{name: text for name, text in entry.items() if name.startswith("signature")},
        }
        for row, entry in rows.items()
    }
