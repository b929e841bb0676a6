"""Split a list of captions that a program wrote into one cell.

pandas and `datasets` write a column of lists into CSV as text: in Python's form, with commas (`['a .', 'b .']`), in
NumPy's, without (`['a .' 'b .']`, often over several lines; `[np.str_('a .'), ...]`), or as JSON. Python itself would
read NumPy's form as one long text, so the parts are taken one by one. None and nan are no captions. Captions may also
be in lines of one cell.
"""

import ast
import html
import json
import re
from collections.abc import Sequence

TEXT = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
ITEM = rf"""(?:None|nan|(?:np\.|numpy\.)?str_\({TEXT}\)|{TEXT})"""
PARTS = rf"""[\[(]\s*{ITEM}(?:(?:\s*,\s*|\s+){ITEM})*\s*(?:,\s*)?[\])]"""
LIST = re.compile(rf"(?:array\()?(?P<parts>{PARTS})(?:,\s*dtype=\S+\)|\))?", re.DOTALL)
SEAM = r"(?:\s*[,;|]\s*|\s+)"  # between quoted texts
SIGNS = (  # of a list, also one cut short, or of another program
    re.compile(r"""\w*[\[({]\s*(?:[\w.]*str_\()?\\*['"]"""),  # at the beginning: c("a .
    re.compile(r""".*?[\[{]\s*(?:[\w.]*str_\()?\\*['"]""", re.DOTALL),  # anywhere: captions=['a .
    re.compile(rf"{TEXT}(?:{SEAM}{TEXT})+\W*$", re.DOTALL),  # quoted texts alone: 'a .', 'b .'
)
QUOTED = re.compile(
    rf"""(?<!\w)(?P<quote>['"])(?P<text>(?:(?!(?P=quote)).|(?<=\w)(?P=quote)(?=\w))*)(?P=quote){SEAM}\\*['"]""",
    re.DOTALL,
)  # with the beginning of another one
BRACKETS = {"[": "]", "{": "}"}


def split_lists(texts: Sequence[str]) -> list[str]:
    """Return the texts, with the parts of a list in its place; a list that cannot be split stays one text."""
    return [part for text in texts for part in _split_list(text)]


def is_list_as_text(text: str) -> bool:
    """Return whether `text` is a list or a map that a program wrote, or looks like one."""
    text = _unwrap(html.unescape(text)).strip()
    has_brackets = len(text) > 1 and text[0] in BRACKETS and text[-1] == BRACKETS[text[0]]
    has_seam = any(len(match["text"].split()) > 1 for match in QUOTED.finditer(text))
    return has_brackets or text.startswith("array(") or has_seam or any(sign.match(text) for sign in SIGNS)


def _unwrap(text: str) -> str:
    """Return the text in a JSON text, which may be encoded several times; `text` if it is none."""
    try:
        content = json.loads(text) if text.lstrip().startswith('"') else None
    except ValueError:
        return text
    return _unwrap(content) if isinstance(content, str) else text


def _split_list(text: str) -> list[str]:
    stripped = _unwrap(text).strip()
    if stripped[:1] not in ("[", "(", "a"):
        return _split_lines(text)
    if (parts := _json_texts(stripped)) is not None:
        return parts
    if not (match := LIST.fullmatch(stripped)):
        return _split_lines(text)
    try:
        return [ast.literal_eval(part) for part in re.findall(TEXT, match["parts"], re.DOTALL)]
    except (ValueError, SyntaxError):
        return [text]


def _split_lines(text: str) -> list[str]:
    """Return the lines of a text if each may be a caption, of two words or more, or else the text.

    If only the last ends a sentence, the lines are one caption that was wrapped.
    """
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    ends = [line[-1] in ".!?" for line in lines]
    has_captions = len(lines) > 1 and all(len(line.split()) > 1 for line in lines) and (any(ends[:-1]) or not ends[-1])
    return lines if has_captions and not is_list_as_text(text) else [text]


def _json_texts(text: str) -> list[str] | None:
    """Return the texts of a JSON list, without nulls; None if it is something else."""
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(parts, list) or not all(isinstance(part, str | None) for part in parts):
        return None
    return [part for part in parts if part is not None]
