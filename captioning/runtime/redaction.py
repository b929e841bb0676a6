"""Replace tokens and passwords by `***` in everything that is printed or written.

The values of secret environment variables are known; other secrets are recognised by their form. Forty hexadecimal
digits alone are not taken for a Weights & Biases key, since a commit's hash looks the same: such a key is recognised by
its variable or by the word before it.
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

MASK = "***"
SECRET_NAMES = re.compile(r"(TOKEN|API_KEY|ACCESS_KEY|SECRET|PASSWORD|_PAT)$", re.IGNORECASE)
KEY_NAMES = re.compile(r"_KEY$", re.IGNORECASE)  # such a variable may also hold a name or a path
MIN_SECRET, MIN_KEY = 8, 16  # characters; a shorter value may be a common word
PATH_STARTS = ("/", "~", ".")
PATTERNS = (  # the group before the secret is kept
    re.compile(r"(\b)hf_(?:(?:oauth|jwt|app)_[\w.-]{16,}|[A-Za-z0-9]{16,})"),
    re.compile(r"(\b)wandb_v\d+_\w{16,}"),
    re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/'\"]+(?=@)", re.IGNORECASE),  # user:password@
    re.compile(r"(\bauthorization['\"]?\s*[:=]\s*['\"]?)(?:\w+\s+)?[^\s'\"]+", re.IGNORECASE),
    re.compile(r"(\bbearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
    re.compile(r"((?:key|token|password|secret)['\"]?\s*[:=]\s*['\"]?)[\w-]{20,}", re.IGNORECASE),
    re.compile(r"([?&](?:X-Amz-[A-Za-z]+|Signature|Policy|Key-Pair-Id|token)=)[^&\s'\"]+"),  # a signed address
)


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Return `text` without the secrets of `environment` (None: `os.environ`) and without what looks like a secret."""
    for secret in secret_values(os.environ if environment is None else environment):
        text = text.replace(secret, MASK)
    for pattern in PATTERNS:
        text = pattern.sub(rf"\1{MASK}", text)
    return text


def secret_values(environment: Mapping[str, str]) -> list[str]:
    """Return the values of secret variables in every form in which they may be printed, the longest first."""
    values = {value for name, value in environment.items() if _holds_secret(name, value.strip())}
    return sorted({form for value in values for form in _spellings(value)}, key=lambda form: (-len(form), form))


def _holds_secret(name: str, value: str) -> bool:
    if SECRET_NAMES.search(name):
        return len(value) >= MIN_SECRET
    return bool(KEY_NAMES.search(name)) and len(value) >= MIN_KEY and not value.startswith(PATH_STARTS)


def _spellings(value: str) -> Iterator[str]:
    """Yield `value`, with and without outer spaces: plain, as JSON and Python write it, URL-quoted, and in base64."""
    for text in (value, value.strip()):
        yield text
        yield from (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1])
        yield quote(text, safe="", errors="surrogateescape")
        yield base64.b64encode(text.encode(errors="surrogateescape")).decode().rstrip("=")


def install_hooks() -> None:
    """Print uncaught exceptions without secrets from now on, and an interruption as one line."""
    sys.excepthook = _print_redacted
    threading.excepthook = lambda failed: _print_redacted(failed.exc_type, failed.exc_value, failed.exc_traceback)
    sys.unraisablehook = lambda failed: _print_redacted(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _print_redacted(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    is_interruption = issubclass(kind, KeyboardInterrupt)
    lines = (
        ["interrupted; give the command again\n"] if is_interruption else traceback.format_exception(kind, error, trace)
    )
    print(redact("".join(lines)), end="", file=sys.stderr, flush=True)
