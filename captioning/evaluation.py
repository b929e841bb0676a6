"""What evaluate makes of predictions: every measure of a run, yardstick rows, sums over seeds, gains over zero-shot.

Scores (CIDEr, BLEU, METEOR, ROUGE-L) are times 100; `ended`, `distinct`, `scene` and `colour` are shares from 0 to 1;
`length` is the mean number of PTB tokens. `scene` and `colour` are there for drawn images only, `ended` for models
only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from captioning import vocabulary
from captioning.predictions import sum_up
from captioning.scores import METRICS, Scorer, Scores, constant_caption, grounding, human_caption, nearest

BY_IMAGE = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L")
References = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Evaluated:
    """One run of one row: its tokenised captions by image, pycocoevalcap's scores, and every measure by name."""

    row: str
    kind: str  # zero-shot | adapted | scst | yardstick
    seed: int
    captions: Mapping[str, str]
    scores: Scores
    measures: Mapping[str, float]


def evaluate(
    row: str, kind: str, seed: int, references: References, captions: Mapping[str, str], facts: Mapping[str, str],
    scorer: Scorer, ended: Sequence[bool] = (),
) -> Evaluated:  # fmt: skip
    """Measure tokenised `captions`; `facts`: JSON of what each image shows, or ""; `ended`: whether each ended."""
    scores = scorer.score(references, captions)
    measures = {
        **scores.corpus,
        "length": float(np.mean([len(caption.split()) for caption in captions.values()])),
        **({"ended": float(np.mean(ended))} if ended else {}),
        "distinct": len(set(captions.values())) / len(captions),
        **grounding(list(captions.values()), [facts[id_] for id_ in captions]),
    }
    return Evaluated(row, kind, seed, captions, scores, measures)


def yardsticks(
    tokens: References, train: Sequence[str], test: Sequence[str],
    train_features: Float[np.ndarray, "train values"], test_features: Float[np.ndarray, "test values"],
) -> dict[str, tuple[References, dict[str, str]]]:  # fmt: skip
    """References and hypotheses of the rows that involve no model."""
    references = {id_: tokens[id_] for id_ in test}
    constant = constant_caption({id_: tokens[id_] for id_ in train})
    copied = zip(test, nearest(test_features, train_features), strict=True)
    return {
        "constant-caption": (references, dict.fromkeys(test, constant)),
        "human-caption": human_caption(references),
        "nearest-image": (references, {id_: tokens[train[place]][0] for id_, place in copied}),
    }


def by_row(results: Sequence[Evaluated], zero_shot: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
    """The rows of data/scores/scores.json; `zero_shot`: row to the row its vocabulary is compared with."""
    rows: dict[str, list[Evaluated]] = {}
    for result in results:
        rows.setdefault(result.row, []).append(result)
    told = {row: [text for run in runs for text in run.captions.values()] for row, runs in rows.items()}
    used = {row: vocabulary.usage(captions) for row, captions in told.items()}
    return {
        row: {
            "kind": runs[0].kind,
            **sum_up({str(run.seed): run.measures for run in runs}),
            "vocabulary": vocabulary.with_gain(used[row], used.get(zero_shot.get(row) or "")),
        }
        for row, runs in rows.items()
    }


def rounded_means(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The rows of metrics/scores.json: scores and length with two decimals, shares with four."""
    return {
        row: {name: round(value, 2 if name in (*METRICS, "length") else 4) for name, value in entry["mean"].items()}
        for row, entry in rows.items()
    }


def image_scores(results: Sequence[Evaluated]) -> dict[str, list[Any]]:
    """The columns of data/scores/by-image.parquet; the seed of a row that nothing was trained for is `NO_SEED`."""
    columns: dict[str, list[Any]] = {name: [] for name in ("row", "seed", "id", *BY_IMAGE)}
    for result in results:
        number = len(result.scores.ids)
        columns["row"] += [result.row] * number
        columns["seed"] += [result.seed] * number
        columns["id"] += result.scores.ids
        for name in BY_IMAGE:
            columns[name] += result.scores.by_image[name].tolist()
    return columns
