"""What evaluate makes of predictions: every measure of a run, yardstick rows, sums over seeds, real differences.

Scores (CIDEr, BLEU, METEOR, ROUGE-L) are times 100; `ended`, `distinct`, `scene` and `colour` are shares from 0 to 1;
`length` is the mean number of PTB tokens. `scene` and `colour` are there for drawn images only, `ended` for models
only.

1. A score's name with ` caption_1` behind it is against each image's first reference alone, with the document
   frequencies of those references. The human row has none: it would be scored against itself.
2. Rows are compared only on the same images and the same references. A row with others has an interval of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from captioning.evaluation import vocabulary
from captioning.evaluation.predictions import ALONE, sum_up
from captioning.evaluation.scores import (
    METRICS,
    Scorer,
    Scores,
    caption_1,
    constant_caption,
    grounding,
    human_caption,
    nearest,
    signature,
)
from captioning.evaluation.significance import LEVEL, RESAMPLES, compare, interval, resampled_means

BY_IMAGE = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L")  # also those against `caption_1` alone
HUMAN = "human-caption"
DIGITS = 4  # of what is resampled: the last ones of a sum differ from machine to machine
References = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Evaluated:
    """One run of one row: its tokenised captions by image, pycocoevalcap's scores, and every measure by name."""

    row: str
    kind: str  # zero-shot | adapted | scst | yardstick
    seed: int
    references: References
    captions: Mapping[str, str]
    scores: Scores
    measures: Mapping[str, float]


def evaluate(
    row: str, kind: str, seed: int, references: References, captions: Mapping[str, str], facts: Mapping[str, str],
    scorer: Scorer, ended: Sequence[bool] = (),
) -> Evaluated:  # fmt: skip
    """Measure tokenised `captions`; `facts`: JSON of what each image shows, or ""; `ended`: whether each ended."""
    scores = scorer.score(references, captions)
    alone = {} if row == HUMAN else scorer.score(caption_1(references), captions).corpus
    measures = {
        **scores.corpus,
        **{name + ALONE: alone[name] for name in BY_IMAGE if alone},
        "length": float(np.mean([len(caption.split()) for caption in captions.values()])),
        **({"ended": float(np.mean(ended))} if ended else {}),
        "distinct": len(set(captions.values())) / len(captions),
        **grounding(list(captions.values()), [facts[id_] for id_ in captions]),
    }
    return Evaluated(row, kind, seed, references, captions, scores, measures)


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
        HUMAN: human_caption(references),
        "nearest-image": (references, {id_: tokens[train[place]][0] for id_, place in copied}),
    }


def by_row(
    results: Sequence[Evaluated], zero_shot: Mapping[str, str | None], maximum_tokens: int
) -> dict[str, dict[str, Any]]:
    """The rows of data/scores/scores.json; `zero_shot`: row to the row its vocabulary is compared with."""
    rows = _runs(results)
    told = {row: [text for run in runs for text in run.captions.values()] for row, runs in rows.items()}
    used = {row: vocabulary.usage(captions) for row, captions in told.items()}
    return {
        row: {
            "kind": runs[0].kind,
            **_signatures(runs[0], maximum_tokens),
            **sum_up({str(run.seed): run.measures for run in runs}),
            "vocabulary": vocabulary.with_gain(used[row], used.get(zero_shot.get(row) or "")),
        }
        for row, runs in rows.items()
    }


def _runs(results: Sequence[Evaluated]) -> dict[str, list[Evaluated]]:
    rows: dict[str, list[Evaluated]] = {}
    for result in results:
        rows.setdefault(result.row, []).append(result)
    return rows


def _signatures(run: Evaluated, maximum_tokens: int) -> dict[str, str]:
    decoded = None if run.kind == "yardstick" else maximum_tokens
    alone = {} if run.row == HUMAN else {f"signature{ALONE}": signature(run.references, decoded, refs="caption_1")}
    return {"signature": signature(run.references, decoded), **alone}


def differences(results: Sequence[Evaluated], seed: int) -> dict[str, Any]:
    """The content of data/scores/significance.json: interval and letters of every row, and every pair's difference.

    Compared are the rows that are scored as the first is; the others have an interval and no letters.
    """
    rows = _runs(results)
    scores = {row: np.stack([run.scores.by_image["CIDEr"] for run in runs]) for row, runs in rows.items()}
    alike = [row for row, runs in rows.items() if runs[0].references == results[0].references]
    found = compare({row: scores[row] for row in alike}, seed)
    own = {row: interval(resampled_means(scores[row].mean(axis=0)[None], seed=seed)[0]) for row in rows.keys() - alike}
    bounds = {row: [round(bound, DIGITS) for bound in (own | dict(found.intervals))[row]] for row in rows}
    return {
        "measure": "CIDEr",
        "resamples": RESAMPLES,
        "seed": seed,
        "level": LEVEL,
        "rows": {row: {"low": low, "high": high, "letters": found.letters.get(row)}
                 for row, (low, high) in bounds.items()},
        "pairs": [{name: round(value, DIGITS) if isinstance(value, float) else value
                   for name, value in asdict(one).items()} for one in found.differences],
    }  # fmt: skip


def metrics(rows: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of metrics/scores.json: scores and length with two decimals, shares with four, CIDEr's interval, and the
    signatures.

    `rows`: of `by_row`. `intervals`: the rows of `differences`.
    """
    return {
        row: {
            **{name: _rounded(name, value) for name, value in entry["mean"].items()},
            **{f"CIDEr {end}": round(intervals[row][end], 2) for end in ("low", "high")},
            **{name: text for name, text in entry.items() if name.startswith("signature")},
        }
        for row, entry in rows.items()
    }


def _rounded(name: str, value: float) -> float:
    return round(value, 2 if name.removesuffix(ALONE) in (*METRICS, "length") else 4)


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
