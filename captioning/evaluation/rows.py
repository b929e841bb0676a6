"""Evaluate runs: the measures of each run, the yardstick rows, means over seeds, and differences between rows.

Scores (CIDEr, BLEU, METEOR, ROUGE-L, Self-CIDEr) are times 100; `ended`, `distinct`, `scene` and `colour` are shares
from 0 to 1; `length` is the mean number of PTB tokens. Only drawn images have `scene` and `colour`; only models have
`ended`.

1. A score whose name ends in ` caption_1` is against each image's first reference alone, with the document frequencies
   of those references. The human row has none, because its caption is that reference.
2. With several parts (test images of a source, or validation images that were held out), each is also scored alone, as
   published scores are: with the document frequencies of its own references. The total is over the test split, and is
   not a mean of these.
3. Rows are compared only if their images and references are the same. Other rows only get an interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from captioning.evaluation import vocabulary
from captioning.evaluation.diversity import score_diversity
from captioning.evaluation.outputs import PartScores, RowScores, RowTest, Significance
from captioning.evaluation.predictions import CAPTION_1, HUMAN, Run, summarize_seeds
from captioning.evaluation.scores import (
    Scorer,
    Scores,
    cider_d,
    constant_caption,
    first_references,
    grounding,
    human_caption,
    nearest_rows,
    signature,
)
from captioning.evaluation.significance import compare_rows
from captioning.metrics.bootstrap import LEVEL, RESAMPLES, interval, resampled_means

IMAGE_METRICS = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L")  # also those against `caption_1` alone
DIGITS = 4  # of resampled numbers: the last digits of a sum differ between machines
References = Mapping[str, Sequence[str]]  # tokenised, by image


@dataclass(frozen=True)
class ScoredImages:
    """The captioned images: tokenised references of each, facts of the test split's, and the ids of each part.

    `facts`: by test image, JSON of what was drawn, or "". `parts`: data/splits/parts.json.
    """

    references: References
    facts: Mapping[str, str]
    parts: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """The scores of some of the captioned images, with document frequencies of their references."""

    references: References
    scores: Scores


@dataclass(frozen=True)
class Result:
    """A run with its tokenised captions of the test split, their scores, and the scores of each part.

    `first_scores`: those against `caption_1` alone; None for the human row. `others`: measures that no
    scorer computes.
    """

    run: Run
    references: References
    captions: Mapping[str, str]
    scores: Scores
    first_scores: Scores | None
    others: Mapping[str, float]
    parts: Mapping[str, Part]

    @cached_property
    def measures(self) -> dict[str, float]:
        """Return all measures by name."""
        first = self.first_scores.corpus if self.first_scores else {}
        first = {name + CAPTION_1: first[name] for name in IMAGE_METRICS if first}
        return {**self.scores.corpus, **first, **self.others}


def evaluate(
    run: Run,
    images: ScoredImages,
    captions: Mapping[str, str],
    scorer: Scorer,
    ended: Sequence[bool] = (),
) -> Result:
    """Measure the tokenised `captions` of a run, by image; `ended`: whether each of them ended with `<eos>`."""
    parts, facts = score_parts(images, captions, scorer), images.facts
    captions = {id_: captions[id_] for id_ in facts if id_ in captions}
    references = {id_: images.references[id_] for id_ in captions}
    scores = scorer.score(references, captions)
    first_scores = None if run.row == HUMAN else scorer.score(first_references(references), captions)
    others = {
        "length": float(np.mean([len(caption.split()) for caption in captions.values()])),
        **({"ended": float(np.mean(ended))} if ended else {}),
        "distinct": len(set(captions.values())) / len(captions),
        "Self-CIDEr": score_diversity(references, captions),
        **grounding(list(captions.values()), [facts[id_] for id_ in captions]),
    }
    return Result(run, references, captions, scores, first_scores, others, parts)


def score_parts(images: ScoredImages, captions: Mapping[str, str], scorer: Scorer) -> dict[str, Part]:
    """Score each part alone, by its label; {} if there is only one. An image without a caption is in no part."""
    parts = {}
    for label, ids in images.parts.items() if len(images.parts) > 1 else ():
        if scored := [id_ for id_ in ids if id_ in captions]:
            references = {id_: images.references[id_] for id_ in scored}
            scores = scorer.score(references, {id_: captions[id_] for id_ in scored}, cider_d)
            parts[label] = Part(references, scores)
    return parts


def yardsticks(
    tokens: References,
    train: Sequence[str],
    captioned: Sequence[str],
    train_features: Float[np.ndarray, "train values"],
    features: Float[np.ndarray, "captioned values"],
) -> dict[str, tuple[References, dict[str, str]]]:
    """Return references and captions of the rows that involve no model; the human one needs a second reference."""
    references = {id_: tokens[id_] for id_ in captioned}
    constant = constant_caption({id_: tokens[id_] for id_ in train})
    neighbours = [train[row] for row in nearest_rows(features, train_features)]
    human = {HUMAN: human_caption(references)} if any(len(texts) > 1 for texts in references.values()) else {}
    return {
        "constant-caption": (references, dict.fromkeys(captioned, constant)),
        **human,
        "nearest-image": (references, {id_: tokens[near][0] for id_, near in zip(captioned, neighbours, strict=True)}),
    }


def score_rows(results: Sequence[Result], maximum_tokens: int) -> dict[str, RowScores]:
    """Return the scores of each row over its seeds, without those under other protocols."""
    groups = _group_by_row(results)
    usage = {
        row: vocabulary.term_usage([caption for result in group for caption in result.captions.values()])
        for row, group in groups.items()
    }
    return {
        row: RowScores(
            kind=group[0].run.kind,
            signature=_sign(group[0], maximum_tokens),
            signature_alone=None if row == HUMAN else _sign(group[0], maximum_tokens, refs="caption_1"),
            **dict(summarize_seeds({str(result.run.seed): result.measures for result in group})),
            sources=_summarize_parts(group, maximum_tokens),
            vocabulary=vocabulary.add_gain(usage[row], usage.get(group[0].run.zero_shot or "")),
        )
        for row, group in groups.items()
    }


def _summarize_parts(group: Sequence[Result], maximum_tokens: int) -> dict[str, PartScores]:
    """Return the scores of each part over the seeds of a row."""
    summaries = {}
    for label, part in group[0].parts.items():
        seeds = summarize_seeds({str(result.run.seed): result.parts[label].scores.corpus for result in group})
        protocol = signature(part.references, _token_limit(group[0], maximum_tokens), split=label)
        summaries[part_name(label)] = PartScores(images=len(part.references), signature=protocol, **dict(seeds))
    return dict(sorted(summaries.items()))


def part_name(label: str) -> str:
    """Name a part for a reader: `UCM` for `test:UCM`, `RSICD validation part` for `validation:RSICD`."""
    split, _, source = label.partition(":")
    return source if split == "test" else f"{source} {split} part"


def _token_limit(result: Result, maximum_tokens: int) -> int | None:
    return None if result.run.kind == "yardstick" else maximum_tokens


def _group_by_row(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.run.row, []).append(result)
    return groups


def _sign(result: Result, maximum_tokens: int, refs: str = "") -> str:
    return signature(result.references, _token_limit(result, maximum_tokens), refs=refs)


def significance(results: Sequence[Result], seed: int) -> Significance:
    """Return interval and letters of each row, and all differences, rounded to `DIGITS`.

    Rows whose references differ from those of the first row have an interval and no letters. The intervals of parts
    are each on its own.
    """
    groups = _group_by_row(results)
    scores = {row: np.stack([result.scores.by_image["CIDEr"] for result in group]) for row, group in groups.items()}
    alike = [row for row, group in groups.items() if group[0].references == results[0].references]
    comparison = compare_rows({row: scores[row] for row in alike}, seed)
    intervals = comparison.intervals | {row: _interval(scores[row], seed) for row in groups.keys() - alike}
    rows = {}
    for row, group in groups.items():
        low, high = (round(bound, DIGITS) for bound in intervals[row])
        sources, letters = _part_intervals(group, seed), comparison.letters.get(row)
        rows[row] = RowTest(low=low, high=high, letters=letters, sources=sources)
    pairs = tuple(pair.rounded(DIGITS) for pair in comparison.differences)
    return Significance(measure="CIDEr", resamples=RESAMPLES, seed=seed, level=LEVEL, rows=rows, pairs=pairs)


def _interval(scores: Float[np.ndarray, "seeds images"], seed: int) -> tuple[float, float]:
    return interval(resampled_means(scores.mean(axis=0)[None], seed=seed)[0])


def _part_intervals(group: Sequence[Result], seed: int) -> dict[str, tuple[float, float]]:
    intervals = {}
    for label in group[0].parts:
        scores = np.stack([result.parts[label].scores.by_image["CIDEr"] for result in group])
        low, high = _interval(scores, seed)
        intervals[part_name(label)] = round(low, DIGITS), round(high, DIGITS)
    return dict(sorted(intervals.items()))


def write_image_scores(path: Path, results: Sequence[Result]) -> None:
    """Write data/scores/by-image.parquet."""
    pq.write_table(pa.table(image_scores(results)), path, compression="zstd")


def image_scores(results: Sequence[Result]) -> dict[str, list[str | float]]:
    """Return the columns of data/scores/by-image.parquet; a row without training has the seed `NO_SEED`."""
    columns: dict[str, list[str | float]] = {name: [] for name in ("row", "seed", "id", *IMAGE_METRICS)}
    for result in results:
        columns["row"] += [result.run.row] * len(result.scores.ids)
        columns["seed"] += [result.run.seed] * len(result.scores.ids)
        columns["id"] += result.scores.ids
        for name in IMAGE_METRICS:
            columns[name] += result.scores.by_image[name].tolist()
    return columns
