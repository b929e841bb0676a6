"""CIDEr-D (Vedantam et al. 2015), equal to pycocoevalcap's to 1e-9 and fast enough to be a reward.

    CIDEr-D(c, S) = 10 / (4 |S|)  sum over n = 1..4 and s in S of
        exp(-(l(c) - l(s))^2 / 2 sigma^2)  min(g_n(c), g_n(s)) . g_n(s) / |g_n(c)| |g_n(s)|

g_n are TF-IDF vectors of n-grams, l is length in tokens. Scores are on pycocoevalcap's scale, 0 to 10; tables show
them times 100.

1. Document frequencies are an argument: those of the training split for the reward, of the test references for the
   table.
2. With `eos`, "<eos>" is a token after every reference and after each hypothesis that ended: without it, a reward
   teaches captions to stop in mid-phrase. The frequencies must have counted it.
3. Vectors of references are computed once, when they are first wanted.
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
    words = tokens.split()
    return Counter(
        " ".join(words[start : start + length])
        for length in range(1, LONGEST_NGRAM + 1)
        for start in range(len(words) - length + 1)
    )


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
    """TF-IDF weights by n-gram length, their norms, and the length of the caption in bigrams."""

    weights: tuple[dict[str, float], ...]
    norms: tuple[float, ...]
    length: int


@dataclass
class CiderD:
    """CIDEr-D against the tokenised `references` of each image, weighted by `frequencies`; immutable in effect."""

    frequencies: DocumentFrequencies
    references: Mapping[str, Sequence[str]]
    eos: bool = False
    _vectors: dict[str, list[_Vector]] = field(default_factory=dict, init=False, repr=False)
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
        """CIDEr-D of tokenised `hypothesis` for image `id_`, 0 to 10; `ended` matters with `eos` only."""
        candidate = self._vector(with_eos(hypothesis, self.eos and ended))
        references = self._references(id_)
        total = sum(_similarity(candidate, reference) for reference in references)
        return SCALE * total / LONGEST_NGRAM / len(references)

    def scores(self, ids: Sequence[str], hypotheses: Sequence[str], ended: Sequence[bool] | None = None) -> np.ndarray:
        """CIDEr-D of each hypothesis, shape (hypotheses,); an image may occur several times."""
        flags = [True] * len(ids) if ended is None else ended
        return np.array([self.score(*one) for one in zip(ids, hypotheses, flags, strict=True)], dtype=np.float64)

    def _references(self, id_: str) -> list[_Vector]:
        if id_ not in self._vectors:
            self._vectors[id_] = [self._vector(with_eos(tokens, self.eos)) for tokens in self.references[id_]]
        return self._vectors[id_]

    def _vector(self, tokens: str) -> _Vector:
        weights: tuple[dict[str, float], ...] = tuple({} for _ in range(LONGEST_NGRAM))
        length = 0
        for ngram, count in ngrams(tokens).items():
            order = ngram.count(" ")
            weights[order][ngram] = count * self._idf.get(ngram, self._log_images)
            length += count if order == 1 else 0
        return _Vector(weights, tuple(math.sqrt(sum(w * w for w in one.values())) for one in weights), length)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """The sum over n of the clipped cosine, times the Gaussian penalty on the difference in length."""
    total = 0.0
    vectors = zip(candidate.weights, reference.weights, candidate.norms, reference.norms, strict=True)
    for mine, theirs, norm, other in vectors:
        if norm and other:
            shared = mine.keys() & theirs.keys()
            total += math.fsum(min(mine[ngram], theirs[ngram]) * theirs[ngram] for ngram in shared) / (norm * other)
    return total * math.exp(-((candidate.length - reference.length) ** 2) / (2 * LENGTH_SIGMA**2))
