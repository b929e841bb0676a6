"""Compare our reward with pycocoevalcap's: CIDEr-D from tokens, and 64 captions from text to reward.

Both sides get the same captions and the same tokenised references. Ours indexes its references and counts its document
frequencies in advance, as in training, where each image returns with new captions; pycocoevalcap's Cider repeats both
in each call. `metrics/ptb.py` tokenises these captions itself; a caption that is not plain would cost us a JVM, too.
"""

import random
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from benchmarks.side_by_side import side_by_side
from captioning.data.world.captions import write_captions
from captioning.data.world.scenes import sample_scene
from captioning.evaluation.scores import java_on_path
from captioning.metrics.cider import CiderD, DocumentFrequencies
from captioning.metrics.ptb import tokenize

IMAGES = 64
Rewards = Callable[[], np.ndarray]


def run() -> str:
    rng = random.Random(1)
    references = {str(id_): tokenize(write_captions(sample_scene(rng), "NWPU", rng)) for id_ in range(IMAGES)}
    texts = [write_captions(sample_scene(rng), "NWPU", rng)[0] for _ in references]
    return f"{_from_tokens(references, tokenize(texts))}\n{_from_text(references, texts)}"


def _from_tokens(references: dict[str, list[str]], tokens: list[str]) -> str:
    reward, ids = _reward(references), list(references)

    def ours() -> np.ndarray:
        return reward.scores(ids, tokens)

    def peer() -> np.ndarray:
        return Cider().compute_score(references, {id_: [text] for id_, text in zip(ids, tokens, strict=True)})[1]

    return _compare(f"CIDEr-D of {IMAGES} captions from tokens, references indexed before", ours, peer, pairs=15)


def _from_text(references: dict[str, list[str]], texts: list[str]) -> str:
    reward, ids = _reward(references), list(references)

    def ours() -> np.ndarray:
        return reward.scores(ids, tokenize(texts))

    def peer() -> np.ndarray:
        with redirect_stdout(StringIO()):
            tokens = PTBTokenizer().tokenize({id_: [{"caption": text}] for id_, text in zip(ids, texts, strict=True)})
            return Cider().compute_score(references, tokens)[1]

    with java_on_path():
        return _compare(f"{IMAGES} captions from text to reward, references indexed before", ours, peer, pairs=7)


def _reward(references: dict[str, list[str]]) -> CiderD:
    return CiderD(DocumentFrequencies.from_references(references.values()), references)


def _compare(label: str, ours: Rewards, peer: Rewards, pairs: int) -> str:
    np.testing.assert_allclose(ours(), peer(), rtol=0, atol=1e-9)
    return side_by_side(label, ours, peer, pairs)
