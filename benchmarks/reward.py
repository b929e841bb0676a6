"""The reward against pycocoevalcap: CIDEr-D from tokens, and 64 captions from text to reward.

Both sides get the same captions and the same tokenised references. Ours has its references indexed and its document
frequencies counted beforehand, as in training, where every image comes back with new captions; pycocoevalcap's Cider
has no way to keep either and does both at every call. Drawn captions are plain to `metrics/ptb.py`; a batch with
one that is not, and that was not met before, costs a JVM on our side, too.
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
    references = {str(place): tokenize(write_captions(sample_scene(rng), "NWPU", rng)) for place in range(IMAGES)}
    said = [write_captions(sample_scene(rng), "NWPU", rng)[0] for _ in references]
    return f"{_from_tokens(references, tokenize(said))}\n{_from_text(references, said)}"


def _from_tokens(references: dict[str, list[str]], tokens: list[str]) -> str:
    reward, ids = _reward(references), list(references)

    def ours() -> np.ndarray:
        return reward.scores(ids, tokens)

    def peer() -> np.ndarray:
        return Cider().compute_score(references, {id_: [one] for id_, one in zip(ids, tokens, strict=True)})[1]

    return _compared(f"CIDEr-D of {IMAGES} captions from tokens, references indexed before", ours, peer, pairs=15)


def _from_text(references: dict[str, list[str]], said: list[str]) -> str:
    reward, ids = _reward(references), list(references)

    def ours() -> np.ndarray:
        return reward.scores(ids, tokenize(said))

    def peer() -> np.ndarray:
        with redirect_stdout(StringIO()):
            tokens = PTBTokenizer().tokenize({id_: [{"caption": text}] for id_, text in zip(ids, said, strict=True)})
            return Cider().compute_score(references, tokens)[1]

    with java_on_path():
        return _compared(f"{IMAGES} captions from text to reward, references indexed before", ours, peer, pairs=7)


def _reward(references: dict[str, list[str]]) -> CiderD:
    return CiderD(DocumentFrequencies.from_references(references.values()), references)


def _compared(what: str, ours: Rewards, peer: Rewards, pairs: int) -> str:
    np.testing.assert_allclose(ours(), peer(), rtol=0, atol=1e-9)
    return side_by_side(what, ours, peer, pairs)
