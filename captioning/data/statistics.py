"""How long captions are, which words they use, how many are near duplicates (section III, Figures 1 and 2).

Words are PTB tokens (metrics/ptb.py): lower case, no punctuation.

1. The paper does not say which stop words it removed; these are wordcloud's, which Figure 2's kind of picture removes
   by default.
2. "Near duplicates" is the paper's word without a measure. Here: two captions of one image whose sets of words
   overlap by `NEAR_DUPLICATE` or more (Jaccard).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

import numpy as np

NEAR_DUPLICATE = 0.8  # words in both captions / words in either
Captions = Mapping[str, Sequence[str]]  # tokenised captions by image


def count_words(captions: Sequence[str], without: Collection[str] = ()) -> list[int]:
    """Words of each tokenised caption, those in `without` not counted."""
    return [sum(word not in without for word in caption.split()) for caption in captions]


def summarise(counts: Sequence[int]) -> dict[str, float]:
    """Mean, median, mode (the smallest of several), minimum and maximum."""
    values, times = np.unique(counts, return_counts=True)
    return {
        "mean": round(float(np.mean(counts)), 2),
        "median": float(np.median(counts)),
        "mode": int(values[np.argmax(times)]),
        "minimum": int(values[0]),
        "maximum": int(values[-1]),
    }


def histogram(columns: Mapping[str, Sequence[int]]) -> list[dict[str, int | str]]:
    """A row for each kind and length: `{"kind", "words", "captions"}`, for a plot."""
    return [
        {"kind": kind, "words": int(value), "captions": int(number)}
        for kind, counts in columns.items()
        for value, number in zip(*np.unique(counts, return_counts=True), strict=True)
    ]


def count_occurrences(captions: Captions, without: Collection[str] = ()) -> dict[str, int]:
    """How often each word occurs, sorted by word."""
    counts = Counter(word for of_image in captions.values() for caption in of_image for word in caption.split())
    return {word: counts[word] for word in sorted(counts) if word not in without}


def share_by_distinct_captions(captions: Captions) -> dict[str, float]:
    """The share of images with 1, 2, ... different captions."""
    counts = Counter(len(set(of_image)) for of_image in captions.values())
    return {str(number): round(counts[number] / len(captions), 4) for number in sorted(counts)}


def share_near_duplicates(captions: Captions) -> float:
    """The share of pairs of captions of one image that are near duplicates; 0 where there is no pair."""
    pairs = near = 0
    for of_image in captions.values():
        words = [frozenset(caption.split()) for caption in of_image]
        for one, other in combinations(words, 2):
            pairs += 1
            near += len(one & other) >= NEAR_DUPLICATE * len(one | other)
    return near / pairs if pairs else 0.0


def describe(captions: Captions, sources: Mapping[str, str], stop_words: Collection[str]) -> dict[str, object]:
    """The statistics of metrics/captions.json."""
    every = [caption for of_image in captions.values() for caption in of_image]
    first = [of_image[0] for of_image in captions.values()]
    by_source: dict[str, dict[str, Sequence[str]]] = {name: {} for name in sorted(set(sources.values()))}
    for id_, of_image in captions.items():
        by_source[sources[id_]][id_] = of_image
    return {
        "images": len(captions),
        "captions": len(every),
        "distinct_words": len(count_occurrences(captions)),
        "words": summarise(count_words(every)),
        "words_without_stop_words": summarise(count_words(every, stop_words)),
        "first_caption_words": summarise(count_words(first)),
        "first_caption_words_without_stop_words": summarise(count_words(first, stop_words)),
        "near_duplicate_pairs": round(share_near_duplicates(captions), 4),
        "distinct_captions": {name: share_by_distinct_captions(of) for name, of in by_source.items()},
    }
