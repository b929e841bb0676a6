"""Split a list of captions that a program wrote into one cell.

pandas and `datasets` write a column of lists into CSV as text: in Python's form, with commas (`['a .', 'b .']`), in
NumPy's, without (`['a .' 'b .']`, often over several lines; `[np.str_('a .'), ...]`), or as JSON. Python itself would
read NumPy's form as one long text, so the parts are taken one by one. None and nan are no captions.
"""

import ast
import json
import re
from collections.abc import Sequence

TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
ITEM = rf"""(?:None|nan|(?:np\.|numpy\.)?str_\({TEXT}\)|{TEXT})"""
PARTS = rf"""[\[(]\s*{ITEM}(?:(?:\s*,\s*|\s+){ITEM})*\s*(?:,\s*)?[\])]"""
LIST = re.compile(rf"(?:array\()?(?P<parts>{PARTS})(?:,\s*dtype=\S+\)|\))?", re.DOTALL)
BEGINNING = re.compile(
    r"""(?:\w+\()?[\[({]\s*(?:[\w.]*str_\()?['"]"""
)  # of a list, also with a type's name, or cut short
BRACKETS = {"[": "]", "{": "}"}


def split_lists(texts: Sequence[str]) -> list[str]:
    """Return the texts, with the parts of a list in its place; a list that cannot be split stays one text."""
    return [part for text in texts for part in _split_list(text)]


def is_list_as_text(text: str) -> bool:
    """Return whether `text` is a list or a map that a program wrote, or looks like one."""
    text = text.strip()
    has_brackets = len(text) > 1 and text[0] in BRACKETS and text[-1] == BRACKETS[text[0]]
    return has_brackets or text.startswith("array(") or BEGINNING.match(text) is not None


def _split_list(text: str) -> list[str]:
    stripped = text.strip()
    if stripped[:1] not in ("[", "(", "a"):
        return [text]
    if (parts := _json_texts(stripped)) is not None:
        return parts
    if not (match := LIST.fullmatch(stripped)):
        return [text]
    try:
        return [ast.literal_eval(part) for part in re.findall(TEXT, match["parts"], re.DOTALL)]
    except (ValueError, SyntaxError):
        return [text]


def _json_texts(text: str) -> list[str] | None:
    """Return the texts of a JSON list, without nulls; None if it is something else."""
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parts, list) or not all(isinstance(part, str | None) for part in parts):
        return None
    return [part for part in parts if part is not None]
