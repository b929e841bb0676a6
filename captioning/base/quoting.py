"""Quote other people's text in messages: one short line that neither a terminal nor a spreadsheet executes."""

from collections.abc import Sequence
from typing import Any

MAX_CHARACTERS = 80  # of a value in a message
MAX_FAULTS = 20  # in one message
FORMULA_STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # a spreadsheet executes a cell that starts so


def escape(text: str) -> str:
    """Replace characters that are not printable, such as line breaks and direction marks, by escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def shorten(value: Any) -> str:
    """Return the value as Python writes it, escaped, cut after `MAX_CHARACTERS`."""
    text = escape(repr(value))
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…"


def csv_cell(text: str) -> str:
    """Escape `text` for a CSV file, and put an apostrophe before what a spreadsheet would take for a formula."""
    escaped = escape(text)
    return f"'{escaped}" if escaped.lstrip().startswith(FORMULA_STARTS) else escaped


def join_faults(faults: Sequence[str]) -> str:
    """List the first `MAX_FAULTS` faults, one a line, and count the others."""
    more = [f"and {len(faults) - MAX_FAULTS} more"] if len(faults) > MAX_FAULTS else []
    return "\n  ".join([*faults[:MAX_FAULTS], *more])
