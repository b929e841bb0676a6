"""Measure how diverse a row's captions are, with Self-CIDEr (Wang and Chan 2019, arXiv:1903.12020).

    Self-CIDEr = -log_m r,   r = sqrt(l_1) / sum over i of sqrt(l_i),   l_1 >= ... >= l_m eigenvalues of K
    K_ij = 1/4  sum over n = 1..4 of  g_n(c_i) . g_n(c_j) / |g_n(c_i)| |g_n(c_j)|

g_n are CIDEr's TF-IDF vectors of the n-grams of m captions c, with the document frequencies of the references. Equal
captions score 0; captions without a common n-gram score 1.

1. Wang and Chan measure several captions of one image. Greedy decoding gives a single one, so c are the captions of
   different test images.
2. Eigenvalues of all images of a large split would cost minutes a row: at most `MAX_IMAGES` are drawn, with a seed.
   Scores of different numbers of images cannot be compared.
3. K is CIDEr without CIDEr-D's clipping and penalty on length, since only that is symmetric and has no negative
   eigenvalue.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array

from captioning.images.table import draw_ids
from captioning.metrics.cider import MAX_NGRAM, DocumentFrequencies, count_ngrams

MAX_IMAGES, SEED = 500, "Self-CIDEr"
DIGITS = 4  # the last digits of an eigenvalue differ between machines


def score_diversity(references: Mapping[str, Sequence[str]], captions: Mapping[str, str]) -> float:
    """Return Self-CIDEr, times 100, of tokenised `captions`, with the document frequencies of `references`."""
    drawn = draw_ids(sorted(captions), MAX_IMAGES, SEED)
    frequencies = DocumentFrequencies.from_references(references.values())
    return round(100 * self_cider(similarities([captions[id_] for id_ in drawn], frequencies)), DIGITS)


def self_cider(kernel: Float[np.ndarray, "captions captions"]) -> float:
    """Return Self-CIDEr from the similarities of captions: 0 to 1, and 0 of fewer than two captions."""
    eigenvalues = np.linalg.eigvalsh(kernel)
    noise = len(kernel) * np.finfo(np.float64).eps * eigenvalues.max()  # of eigenvalues that are 0
    roots = np.sqrt(eigenvalues[eigenvalues > noise])
    return float(np.log(roots.sum() / roots.max()) / np.log(len(kernel))) if len(roots) > 1 else 0.0


def similarities(captions: Sequence[str], frequencies: DocumentFrequencies) -> Float[np.ndarray, "captions captions"]:
    """Return CIDEr, from 0 to 1, of each pair of tokenised `captions`."""
    weights: list[list[dict[str, float]]] = [_weigh(caption, frequencies) for caption in captions]
    vectors = [_unit_rows([by_length[n] for by_length in weights]) for n in range(MAX_NGRAM)]
    return sum(((rows @ rows.T).toarray() for rows in vectors), start=np.zeros(())) / MAX_NGRAM


def _weigh(caption: str, frequencies: DocumentFrequencies) -> list[dict[str, float]]:
    """Return the TF-IDF weights of n-grams, one map for each n."""
    weights: list[dict[str, float]] = [{} for _ in range(MAX_NGRAM)]
    for ngram, count in count_ngrams(caption).items():
        rarity = math.log(frequencies.images) - math.log(max(1, frequencies.ngrams.get(ngram, 0)))
        weights[ngram.count(" ")][ngram] = count * rarity
    return weights


def _unit_rows(weights: Sequence[Mapping[str, float]]) -> csr_array:
    """Return a row of length 1 for each caption; one of length 0 if it has no n-gram with a weight."""
    columns = {ngram: column for column, ngram in enumerate(sorted({ngram for row in weights for ngram in row}))}
    norms = [math.hypot(*row.values()) or 1.0 for row in weights]
    cells = [
        (weight / norm, number, columns[ngram])
        for number, (row, norm) in enumerate(zip(weights, norms, strict=True))
        for ngram, weight in row.items()
    ]
    values, rows, places = zip(*cells, strict=True) if cells else ((), (), ())
    return csr_array((values, (rows, places)), shape=(len(weights), max(1, len(columns))), dtype=np.float64)
