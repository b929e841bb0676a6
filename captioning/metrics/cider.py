"""CIDEr-D (Vedantam et al. 2015), equal to pycocoevalcap's to 1e-9 and fast enough to be a reward.

    CIDEr-D(c, S) = 10 / (4 |S|)  sum over n = 1..4 and s in S of
        exp(-(l(c) - l(s))^2 / 2 sigma^2)  min(g_n(c), g_n(s)) . g_n(s) / |g_n(c)| |g_n(s)|

g_n are TF-IDF vectors of n-grams, l is length in tokens. Scores are on pycocoevalcap's scale, 0 to 10; tables show
them times 100.

1. Document frequencies are an argument: those of the training split for the reward, of the test references for the
   table.
2. With `eos`, "<eos>" is a token after every reference and after each hypothesis that ended: without it, a reward
   teaches captions to stop in mid-phrase. The frequencies must have counted it.
3. An image's references are weighed once, when they are first wanted, into one index from n-gram to the references that
   hold it: a hypothesis then costs one look-up an n-gram, however many the references. References with the same tokens
   (in RSICD often all five) are one entry that counts several times.
4. As in pycocoevalcap, length is the number of bigrams.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LENGTH_SIGMA = 6.0  # tokens
LONGEST_NGRAM = 4
SCALE = 10.0  # pycocoevalcap's
EOS = "<eos>"


def ngrams(tokens: str) -> Counter[str]:
    """How often each n-gram, n = 1..4, occurs in space-joined `tokens`; n-grams are space-joined too."""
    return Counter(ngram for of_length in _by_length(tokens) for ngram in of_length)


def _by_length(tokens: str) -> list[list[str]]:
    """The n-grams as they occur, one list for each n = 1..4; each n-gram is the one a word shorter and a word."""
    words = tokens.split()
    result = [words]
    for length in range(2, LONGEST_NGRAM + 1):
        result.append([f"{shorter} {word}" for shorter, word in zip(result[-1], words[length - 1 :], strict=False)])
    return result


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many of `images` some reference holds an n-gram."""

    images: int
    ngrams: Mapping[str, int]

    @classmethod
    def from_references(cls, references: Iterable[Sequence[str]], eos: bool = False) -> "DocumentFrequencies":
        """Count over tokenised `references`, one sequence an image; with `eos`, after `EOS` is put to each."""
        images, counts = 0, Counter[str]()
        for of_image in references:
            images += 1
            counts.update({ngram for tokens in of_image for ngram in ngrams(with_eos(tokens, eos))})
        return cls(images, dict(sorted(counts.items())))

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "DocumentFrequencies":
        """The inverse of `to_json`."""
        return cls(int(record["images"]), record["ngrams"])

    def to_json(self) -> dict[str, Any]:
        """`{"images": n, "ngrams": {"a b": images that hold it}}`, sorted."""
        return {"images": self.images, "ngrams": dict(self.ngrams)}


def with_eos(tokens: str, ended: bool) -> str:
    """`tokens` with `EOS` after them where the caption `ended`."""
    return f"{tokens} {EOS}".strip() if ended else tokens


@dataclass(frozen=True)
class _Vector:
    """TF-IDF weights by n-gram, a dictionary for each n, and the length of the caption in bigrams."""

    weights: tuple[dict[str, float], ...]
    length: int


@dataclass(frozen=True)
class _References:
    """What an image's distinct references weigh: `holders` of an n-gram are place, weight, weight / norm."""

    lengths: tuple[int, ...]  # in bigrams
    shares: tuple[float, ...]  # of the image's references, sum 1
    holders: dict[str, list[tuple[int, float, float]]]


@dataclass
class CiderD:
    """CIDEr-D against the tokenised `references` of each image, weighted by `frequencies`; immutable in effect."""

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
        """CIDEr-D of tokenised `hypothesis` for image `id_`, 0 to 10; `ended` matters with `eos` only.

        Raises `KeyError` for an image that is not there, `ValueError` for one without a reference.
        """
        references, candidate = self._of_image(id_), self._vector(with_eos(hypothesis, self.eos and ended))
        cosines = [0.0] * len(references.lengths)  # summed over n, clipped
        for weights in candidate.weights:
            norm = math.hypot(*weights.values())
            for ngram, weight in weights.items():
                for place, theirs, direction in references.holders.get(ngram, ()):
                    clipped = weight if weight < theirs else theirs
                    cosines[place] += clipped * direction / norm
        apart = (candidate.length - length for length in references.lengths)
        terms = zip(cosines, references.shares, apart, strict=True)
        # Python 3.12 changed how `sum` rounds: fsum rounds alike in every version
        total = math.fsum(cosine * share * math.exp(-(gap**2) / (2 * LENGTH_SIGMA**2)) for cosine, share, gap in terms)
        return SCALE * total / LONGEST_NGRAM

    def scores(self, ids: Sequence[str], hypotheses: Sequence[str], ended: Sequence[bool] | None = None) -> np.ndarray:
        """CIDEr-D of each hypothesis, shape (hypotheses,); an image may occur several times."""
        flags = [True] * len(ids) if ended is None else ended
        return np.array([self.score(*one) for one in zip(ids, hypotheses, flags, strict=True)], dtype=np.float64)

    def _of_image(self, id_: str) -> _References:
        if id_ not in self._indexed:
            if not self.references[id_]:
                raise ValueError(f"image {id_!r} has no reference; it needs at least one")
            self._indexed[id_] = self._index(self.references[id_])
        return self._indexed[id_]

    def _index(self, references: Sequence[str]) -> _References:
        times = Counter(references)
        vectors = [self._vector(with_eos(tokens, self.eos)) for tokens in times]
        holders: dict[str, list[tuple[int, float, float]]] = {}
        for place, vector in enumerate(vectors):
            for weights in vector.weights:
                norm = math.hypot(*weights.values())
                for ngram, weight in weights.items():
                    if weight:  # an n-gram that every image has weighs nothing
                        holders.setdefault(ngram, []).append((place, weight, weight / norm))
        shares = tuple(number / len(references) for number in times.values())
        return _References(tuple(vector.length for vector in vectors), shares, holders)

    def _vector(self, tokens: str) -> _Vector:
        by_length = _by_length(tokens)
        weights: tuple[dict[str, float], ...] = tuple({} for _ in by_length)
        for ngrams_, weight in zip(by_length, weights, strict=True):
            for ngram in ngrams_:
                weight[ngram] = weight.get(ngram, 0.0) + self._idf.get(ngram, self._log_images)
        return _Vector(weights, len(by_length[1]))
