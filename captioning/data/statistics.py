"""Measure captions: their lengths, their words and their near duplicates (section III, Figures 1 and 2).

Words are PTB tokens (metrics/ptb.py): lower case, no punctuation.

1. The paper does not name its stop words. These are wordcloud's, which a word cloud as in Figure 2 removes by default.
2. The paper speaks of "near duplicates" without a measure. Here they are two captions of one image whose sets of words
   overlap by `NEAR_DUPLICATE` or more (Jaccard).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np

from captioning.data.outputs import CaptionStatistics, Lengths

NEAR_DUPLICATE = 0.8  # words in both captions / words in either
Captions = Mapping[str, Sequence[str]]  # tokenised captions by image


def count_words(captions: Sequence[str], stop_words: Collection[str] = ()) -> list[int]:
    """Return the number of words of each tokenised caption without `stop_words`."""
    return [sum(word not in stop_words for word in caption.split()) for caption in captions]


def summarise(counts: Sequence[int]) -> Lengths:
    """Return mean, median, mode, minimum and maximum."""
    values, times = np.unique(counts, return_counts=True)
    return Lengths(
        mean=round(float(np.mean(counts)), 2),
        median=float(np.median(counts)),
        mode=int(values[np.argmax(times)]),
        minimum=int(values[0]),
        maximum=int(values[-1]),
    )


def histogram(columns: Mapping[str, Sequence[int]]) -> list[dict[str, int | str]]:
    """Return a row for each kind and length, `{"kind", "words", "captions"}`, for a plot."""
    return [
        {"kind": kind, "words": int(value), "captions": int(number)}
        for kind, counts in columns.items()
        for value, number in zip(*np.unique(counts, return_counts=True), strict=True)
    ]


def count_occurrences(captions: Captions, stop_words: Collection[str] = ()) -> dict[str, int]:
    """Count how often each word occurs, sorted by word."""
    counts = Counter(word for texts in captions.values() for caption in texts for word in caption.split())
    return {word: counts[word] for word in sorted(counts) if word not in stop_words}


def share_by_distinct_captions(captions: Captions) -> dict[str, float]:
    """Return the share of images with 1, 2, ... different captions."""
    counts = Counter(len(set(texts)) for texts in captions.values())
    return {str(number): round(counts[number] / len(captions), 4) for number in sorted(counts)}


def share_near_duplicates(captions: Captions) -> float:
    """Return the share of near duplicates among the pairs of captions of one image; 0 without a pair."""
    word_sets = ([frozenset(caption.split()) for caption in texts] for texts in captions.values())
    pairs = [pair for sets in word_sets for pair in combinations(sets, 2)]
    near = sum(len(first & second) >= NEAR_DUPLICATE * len(first | second) for first, second in pairs)
    return near / len(pairs) if pairs else 0.0


def describe(captions: Captions, sources: Mapping[str, str], stop_words: Collection[str]) -> CaptionStatistics:
    """Return the statistics of `captions`; `sources`: by image."""
    flat = [caption for texts in captions.values() for caption in texts]
    first = [texts[0] for texts in captions.values()]
    by_source: dict[str, dict[str, Sequence[str]]] = {name: {} for name in sorted(set(sources.values()))}
    for id_, texts in captions.items():
        by_source[sources[id_]][id_] = texts
    return CaptionStatistics(
        images=len(captions),
        captions=len(flat),
        distinct_words=len(count_occurrences(captions)),
        words=summarise(count_words(flat)),
        words_without_stop_words=summarise(count_words(flat, stop_words)),
        first_caption_words=summarise(count_words(first)),
        first_caption_words_without_stop_words=summarise(count_words(first, stop_words)),
        near_duplicate_pairs=round(share_near_duplicates(captions), 4),
        distinct_captions={name: share_by_distinct_captions(group) for name, group in by_source.items()},
    )
