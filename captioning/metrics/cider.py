"""CIDEr-D (Vedantam et al. 2015), equal to pycocoevalcap's to 1e-9 and fast enough to be a reward.

    CIDEr-D(c, S) = 10 / (4 |S|)  sum over n = 1..4 and s in S of
        exp(-(l(c) - l(s))^2 / 2 sigma^2)  min(g_n(c), g_n(s)) . g_n(s) / |g_n(c)| |g_n(s)|

g_n are TF-IDF vectors of n-grams, l is the length in bigrams, as in pycocoevalcap. Scores are 0 to 10; tables show them
times 100.

1. The reward uses document frequencies of the training split, the table those of the test references.
2. With `eos`, "<eos>" is a token after each reference and after each hypothesis that ended. Without it, the reward
   teaches captions to stop in the middle of a phrase. The frequencies must count "<eos>" too.
3. An image's references are weighted once, at first use, and indexed by n-gram: a hypothesis costs one look-up for each
   n-gram. Equal references (in RSICD often all five) are one entry with a larger share.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

LENGTH_SIGMA = 6.0  # tokens
MAX_NGRAM = 4  # tokens
SCALE = 10.0  # pycocoevalcap's
EOS = "<eos>"


def count_ngrams(tokens: str) -> Counter[str]:
    """Count the n-grams, n = 1..4, of space-joined `tokens`; n-grams are space-joined too."""
    return Counter(ngram for ngrams in _ngrams_by_length(tokens) for ngram in ngrams)


def _ngrams_by_length(tokens: str) -> list[list[str]]:
    """Return all n-grams, one list for each n = 1..4. Each n-gram is a shorter one and a word."""
    words = tokens.split()
    result = [words]
    for length in range(2, MAX_NGRAM + 1):
        result.append([f"{shorter} {word}" for shorter, word in zip(result[-1], words[length - 1 :], strict=False)])
    return result


@dataclass(frozen=True)
class DocumentFrequencies:
    """The number of images, of `images`, that have an n-gram in a reference."""

    images: int
    ngrams: Mapping[str, int]

    @classmethod
    def from_references(cls, references: Iterable[Sequence[str]], eos: bool = False) -> "DocumentFrequencies":
        """Count over tokenised `references`, one sequence for each image; `eos` appends `EOS` to each reference."""
        images, counts = 0, Counter[str]()
        for captions in references:
            images += 1
            counts.update({ngram for tokens in captions for ngram in count_ngrams(append_eos(tokens, eos))})
        return cls(images, dict(sorted(counts.items())))


def append_eos(tokens: str, ended: bool) -> str:
    """Append `EOS` if the caption `ended`."""
    return f"{tokens} {EOS}".strip() if ended else tokens


@dataclass(frozen=True)
class _Vector:
    """TF-IDF weights by n-gram, one map for each n, and the caption's length in bigrams."""

    weights: tuple[dict[str, float], ...]
    length: int


@dataclass(frozen=True)
class _References:
    """An image's distinct references. `postings`: by n-gram, the index, weight and weight / norm of each reference."""

    lengths: tuple[int, ...]  # in bigrams
    shares: tuple[float, ...]  # of the image's references, sum 1
    postings: dict[str, list[tuple[int, float, float]]]


@dataclass
class CiderD:
    """CIDEr-D against the tokenised `references` of each image."""

    frequencies: DocumentFrequencies
    references: Mapping[str, Sequence[str]]
    eos: bool = False
    _indexed: dict[str, _References] = field(default_factory=dict, init=False, repr=False)
    _log_images: float = field(init=False, repr=False)
    _idf: dict[str, float] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.frequencies.images < 1:
            raise ValueError("document frequencies of no image; they need at least one")
        if self.eos and self.frequencies.ngrams.get(EOS, 0) < 1:
            raise ValueError(f"document frequencies do not count {EOS}; make them with eos=True")
        self._log_images = math.log(self.frequencies.images)
        self._idf = {ngram: self._log_images - math.log(max(1, n)) for ngram, n in self.frequencies.ngrams.items()}

    def score(self, id_: str, hypothesis: str, ended: bool = True) -> float:
        """Return CIDEr-D of the tokenised `hypothesis` for image `id_`, 0 to 10; `ended` matters only with `eos`."""
        if id_ not in self._indexed:
            self._indexed[id_] = self._index(id_)
        references, candidate = self._indexed[id_], self._vector(append_eos(hypothesis, self.eos and ended))
        cosines = [0.0] * len(references.lengths)  # clipped, summed over n
        for weights in candidate.weights:
            norm = math.hypot(*weights.values())
            for ngram, weight in weights.items():
                for index, reference_weight, direction in references.postings.get(ngram, ()):
                    clipped = weight if weight < reference_weight else reference_weight
                    cosines[index] += clipped * direction / norm
        gaps = (candidate.length - length for length in references.lengths)
        terms = zip(cosines, references.shares, gaps, strict=True)
        # Python 3.12 changed how `sum` rounds; fsum rounds the same in every version
        total = math.fsum(cosine * share * math.exp(-(gap**2) / (2 * LENGTH_SIGMA**2)) for cosine, share, gap in terms)
        return SCALE * total / MAX_NGRAM

    def scores(self, ids: Sequence[str], hypotheses: Sequence[str], ended: Sequence[bool] | None = None) -> np.ndarray:
        """Return CIDEr-D of each hypothesis, shape (hypotheses,); an image may occur several times."""
        flags = [True] * len(ids) if ended is None else ended
        return np.array([self.score(*row) for row in zip(ids, hypotheses, flags, strict=True)], dtype=np.float64)

    def _index(self, id_: str) -> _References:
        references = self.references[id_]
        if not references:
            raise ValueError(f"image {id_!r} has no reference; it needs at least one")
        counts = Counter(references)
        vectors = [self._vector(append_eos(tokens, self.eos)) for tokens in counts]
        postings: dict[str, list[tuple[int, float, float]]] = {}
        for index, vector in enumerate(vectors):
            for weights in vector.weights:
                norm = math.hypot(*weights.values())
                for ngram, weight in weights.items():
                    if weight:  # an n-gram of every image has weight 0
                        postings.setdefault(ngram, []).append((index, weight, weight / norm))
        shares = tuple(count / len(references) for count in counts.values())
        return _References(tuple(vector.length for vector in vectors), shares, postings)

    def _vector(self, tokens: str) -> _Vector:
        by_length = _ngrams_by_length(tokens)
        weights: tuple[dict[str, float], ...] = tuple({} for _ in by_length)
        for ngrams, weight in zip(by_length, weights, strict=True):
            for ngram in ngrams:
                weight[ngram] = weight.get(ngram, 0.0) + self._idf.get(ngram, self._log_images)
        return _Vector(weights, len(by_length[1]))
