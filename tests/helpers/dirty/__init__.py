"""A corpus of dirty input: what people really hand in, or a hostile person might, and what becomes of it.

Each case is data: its kind, what it is in words, the outcome, the words that must be told, and how it is made. The
tests hold the code to it, and `python -m tests.helpers.dirty` writes docs/dirty-input.md from it.
"""

from dataclasses import dataclass
from typing import Any

AS_IT_IS, REPAIRED, SET_ASIDE, REFUSED = "as it is", "repaired", "set aside", "refused"
OUTCOMES = (AS_IT_IS, REPAIRED, SET_ASIDE, REFUSED)


@dataclass(frozen=True)
class Case:
    """`told`: of what is repaired the rule, of what is set aside the reason, of what is refused words of the error.

    `make` is what the kind's module says; `kept`: what is left, where the outcome alone does not tell.
    """

    name: str
    outcome: str
    told: str
    make: Any
    kept: Any = None
