"""What is told of text that others wrote: on one line, short, nothing that a terminal or a spreadsheet would obey."""

from collections.abc import Sequence
from typing import Any

LONGEST = 80  # characters of a value that are told
MOST_FAULTS = 20  # told at once
FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # what a spreadsheet runs where a cell begins so; the wide forms, too


def plain(text: str) -> str:
    """`text` with what is not printable, line breaks and marks of direction among it, spelt out as escapes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def short(value: Any) -> str:
    """A value as Python writes it, plain, cut where it is long."""
    text = plain(repr(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def cell(text: str) -> str:
    """`text` for a CSV file that a spreadsheet may open: plain, behind an apostrophe where it would be a formula."""
    told = plain(text)
    return f"'{told}" if told.lstrip().startswith(FORMULA) else told


def all_told(faults: Sequence[str]) -> str:
    """Faults a line each, the first `MOST_FAULTS` of them."""
    more = [f"and {len(faults) - MOST_FAULTS} more"] if len(faults) > MOST_FAULTS else []
    return "\n  ".join([*faults[:MOST_FAULTS], *more])
