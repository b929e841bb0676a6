"""Evaluate runs: the measures of each run, the yardstick rows, means over seeds, and differences between rows.

Scores (CIDEr, BLEU, METEOR, ROUGE-L) are times 100; `ended`, `distinct`, `scene` and `colour` are shares from 0 to 1;
`length` is the mean number of PTB tokens. Only drawn images have `scene` and `colour`; only models have `ended`.

1. A score whose name ends in ` caption_1` is against each image's first reference alone, with the document frequencies
   of those references. The human row has none, because its caption is that reference.
2. With several sources, each is also scored alone, as published scores are: with the document frequencies of its own
   test references. The total is not a mean of these.
3. Rows are compared only if their images and references are the same. Other rows only get an interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from captioning.evaluation import vocabulary
from captioning.evaluation.predictions import CAPTION_1, Run, summarize_seeds
from captioning.evaluation.scores import (
    Scorer,
    Scores,
    constant_caption,
    first_references,
    grounding,
    human_caption,
    nearest_rows,
    signature,
)
from captioning.evaluation.significance import LEVEL, RESAMPLES, compare_rows, interval, resampled_means

BY_IMAGE = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L")  # also those against `caption_1` alone
HUMAN = "human-caption"
DIGITS = 4  # of resampled numbers: the last digits of a sum differ between machines
References = Mapping[str, Sequence[str]]  # tokenised, by image


@dataclass(frozen=True)
class Result:
    """A run with its tokenised captions by image, pycocoevalcap's scores, all measures by name, scores by source."""

    run: Run
    references: References
    captions: Mapping[str, str]
    scores: Scores
    measures: Mapping[str, float]
    by_source: Mapping[str, Scores]


def evaluate(
    run: Run,
    references: References,
    captions: Mapping[str, str],
    facts: Mapping[str, str],
    scorer: Scorer,
    ended: Sequence[bool] = (),
    sources: Mapping[str, str] | None = None,
) -> Result:
    """Measure tokenised `captions` of a run; the other maps are by image, too.

    `facts`: JSON of what was drawn, or "". `ended`: whether each caption ended. `sources`: names; of one source alone,
    or without names, there are no scores by source.
    """
    scores = scorer.score(references, captions)
    alone = {} if run.row == HUMAN else scorer.score(first_references(references), captions).corpus
    measures = {
        **scores.corpus,
        **{name + CAPTION_1: alone[name] for name in BY_IMAGE if alone},
        "length": float(np.mean([len(caption.split()) for caption in captions.values()])),
        **({"ended": float(np.mean(ended))} if ended else {}),
        "distinct": len(set(captions.values())) / len(captions),
        **grounding(list(captions.values()), [facts[id_] for id_ in captions]),
    }
    return Result(
        run, references, captions, scores, measures, score_sources(references, captions, sources or {}, scorer)
    )


def score_sources(
    references: References, captions: Mapping[str, str], sources: Mapping[str, str], scorer: Scorer
) -> dict[str, Scores]:
    """Score the images of each source alone, with document frequencies of their references; {} for one source."""
    names = sorted({sources[id_] for id_ in captions if id_ in sources})
    if len(names) < 2:
        return {}
    groups = {name: [id_ for id_ in captions if sources[id_] == name] for name in names}
    return {
        name: scorer.score({id_: references[id_] for id_ in ids}, {id_: captions[id_] for id_ in ids})
        for name, ids in groups.items()
    }


def yardsticks(
    tokens: References,
    train: Sequence[str],
    test: Sequence[str],
    train_features: Float[np.ndarray, "train values"],
    test_features: Float[np.ndarray, "test values"],
) -> dict[str, tuple[References, dict[str, str]]]:
    """Return references and captions of the rows that involve no model; the human one needs a second reference."""
    references = {id_: tokens[id_] for id_ in test}
    constant = constant_caption({id_: tokens[id_] for id_ in train})
    neighbours = [train[row] for row in nearest_rows(test_features, train_features)]
    human = {HUMAN: human_caption(references)} if any(len(texts) > 1 for texts in references.values()) else {}
    return {
        "constant-caption": (references, dict.fromkeys(test, constant)),
        **human,
        "nearest-image": (references, {id_: tokens[near][0] for id_, near in zip(test, neighbours, strict=True)}),
    }


def score_rows(results: Sequence[Result], maximum_tokens: int) -> dict[str, dict[str, Any]]:
    """Return the rows of data/scores/scores.json."""
    groups = _group_by_row(results)
    usage = {
        row: vocabulary.term_usage([caption for result in group for caption in result.captions.values()])
        for row, group in groups.items()
    }
    return {
        row: {
            "kind": group[0].run.kind,
            **_signatures(group[0], maximum_tokens),
            **summarize_seeds({str(result.run.seed): result.measures for result in group}),
            "sources": _summarize_sources(group, maximum_tokens),
            "vocabulary": vocabulary.add_gain(usage[row], usage.get(group[0].run.zero_shot or "")),
        }
        for row, group in groups.items()
    }


def _summarize_sources(group: Sequence[Result], maximum_tokens: int) -> dict[str, dict[str, Any]]:
    """Return of each source the number of images, the protocol, and scores over seeds."""
    summaries = {}
    for name, scores in group[0].by_source.items():
        references = {id_: group[0].references[id_] for id_ in scores.ids}
        seeds = {str(result.run.seed): result.by_source[name].corpus for result in group}
        protocol = signature(references, _token_limit(group[0], maximum_tokens), split=f"test:{name}")
        summaries[name] = {"images": len(scores.ids), "signature": protocol, **summarize_seeds(seeds)}
    return summaries


def _token_limit(result: Result, maximum_tokens: int) -> int | None:
    return None if result.run.kind == "yardstick" else maximum_tokens


def _group_by_row(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.run.row, []).append(result)
    return groups


def _signatures(result: Result, maximum_tokens: int) -> dict[str, str]:
    limit = _token_limit(result, maximum_tokens)
    signatures = {"signature": signature(result.references, limit)}
    if result.run.row != HUMAN:
        signatures[f"signature{CAPTION_1}"] = signature(result.references, limit, refs="caption_1")
    return signatures


def significance(results: Sequence[Result], seed: int) -> dict[str, Any]:
    """Return the content of data/scores/significance.json: interval and letters of each row, and all differences.

    Rows whose references differ from those of the first row have an interval and no letters.
    """
    groups = _group_by_row(results)
    scores = {row: np.stack([result.scores.by_image["CIDEr"] for result in group]) for row, group in groups.items()}
    alike = [row for row, group in groups.items() if group[0].references == results[0].references]
    comparison = compare_rows({row: scores[row] for row in alike}, seed)
    intervals = dict(comparison.intervals)
    for row in groups.keys() - alike:
        intervals[row] = interval(resampled_means(scores[row].mean(axis=0)[None], seed=seed)[0])
    bounds = {row: [round(bound, DIGITS) for bound in intervals[row]] for row in groups}
    letters = comparison.letters
    return {
        "measure": "CIDEr",
        "resamples": RESAMPLES,
        "seed": seed,
        "level": LEVEL,
        "rows": {row: {"low": low, "high": high, "letters": letters.get(row)} for row, (low, high) in bounds.items()},
        "pairs": [
            {name: round(value, DIGITS) if isinstance(value, float) else value for name, value in asdict(pair).items()}
            for pair in comparison.differences
        ],
    }


def image_scores(results: Sequence[Result]) -> dict[str, list[Any]]:
    """Return the columns of data/scores/by-image.parquet; a row without training has the seed `NO_SEED`."""
    columns: dict[str, list[Any]] = {name: [] for name in ("row", "seed", "id", *BY_IMAGE)}
    for result in results:
        columns["row"] += [result.run.row] * len(result.scores.ids)
        columns["seed"] += [result.run.seed] * len(result.scores.ids)
        columns["id"] += result.scores.ids
        for name in BY_IMAGE:
            columns[name] += result.scores.by_image[name].tolist()
    return columns
