"""Dirty inputs: what people or attackers may supply, and the outcome of each.

A case is data: what the input is, its outcome, words of the message, and how to make it. The tests run each case;
`python -m tests.helpers.dirty` prints them all.
"""

from dataclasses import dataclass
from typing import Any

AS_IT_IS, REPAIRED, SET_ASIDE, REFUSED = "as it is", "repaired", "set aside", "refused"
OUTCOMES = (AS_IT_IS, REPAIRED, SET_ASIDE, REFUSED)


@dataclass(frozen=True)
class Case:
    """`message`: the rule (repaired), the reason (set aside), or words of the error (refused).

    The module of each kind describes `make` and `result`.
    """

    name: str
    outcome: str
    message: str
    make: Any
    result: Any = None
