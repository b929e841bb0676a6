"""Tokens and passwords stay out of what is printed or written: each becomes `***`.

Known ones by value, from the environment; others by their look. Forty hexadecimal digits alone are not taken for a
Weights & Biases key, as a commit's hash looks the same: such a key is known by its variable, or by the word before it.
"""

import base64
import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from urllib.parse import quote

HIDDEN = "***"
NAMES = re.compile(r"(TOKEN|API_KEY|ACCESS_KEY|SECRET|PASSWORD|_PAT)$", re.IGNORECASE)  # of variables that hold one
KEYS = re.compile(r"_KEY$", re.IGNORECASE)  # of variables that hold one, or the name of something, or a file's
SHORTEST, SHORTEST_KEY = 8, 16  # characters of a value that is no common word
FILES = ("/", "~", ".")  # how a path to a key begins
LOOKS = (  # what stands ahead of the secret is kept
    re.compile(r"(\b)hf_(?:(?:oauth|jwt|app)_[\w.-]{16,}|[A-Za-z0-9]{16,})"),
    re.compile(r"(\b)wandb_v\d+_\w{16,}"),
    re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/'\"]+(?=@)", re.IGNORECASE),  # user:password@
    re.compile(r"(\bauthorization['\"]?\s*[:=]\s*['\"]?)(?:\w+\s+)?[^\s'\"]+", re.IGNORECASE),
    re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"((?:key|token|password|secret)['\"]?\s*[:=]\s*['\"]?)[\w-]{20,}", re.IGNORECASE),
    re.compile(r"([?&](?:X-Amz-[A-Za-z]+|Signature|Policy|Key-Pair-Id|token)=)[^&\s'\"]+"),  # a signed address
)


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` without secrets: those of `environment` (None: this process's), and what looks like one."""
    for secret in known(os.environ if environment is None else environment):
        text = text.replace(secret, HIDDEN)
    for look in LOOKS:
        text = look.sub(rf"\1{HIDDEN}", text)
    return text


def known(environment: Mapping[str, str]) -> list[str]:
    """Values of secret variables in every form they may be told in; the longest first."""
    values = {value for name, value in environment.items() if _holds_secret(name, value.strip())}
    return sorted({form for value in values for form in _forms(value)}, key=lambda form: (-len(form), form))


def _holds_secret(name: str, value: str) -> bool:
    if NAMES.search(name):
        return len(value) >= SHORTEST
    return bool(KEYS.search(name)) and len(value) >= SHORTEST_KEY and not value.startswith(FILES)


def _forms(value: str) -> Iterator[str]:
    """As it is and without outer spaces: plain, as JSON and Python write it, quoted for an address, and in base64."""
    for text in (value, value.strip()):
        yield text
        yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1])
        yield quote(text, safe="", errors="surrogateescape")
        yield base64.b64encode(text.encode(errors="surrogateescape")).decode().rstrip("=")


def install() -> None:
    """From now on, what ends the program uncaught is told without secrets."""
    sys.excepthook = _tell
    threading.excepthook = lambda failed: _tell(failed.exc_type, failed.exc_value, failed.exc_traceback)
    sys.unraisablehook = lambda failed: _tell(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _tell(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    sys.stderr.write(redacted("".join(traceback.format_exception(kind, error, trace))))
    sys.stderr.flush()
