"""YAML of people's hands as plain data: maps, lists, text, numbers, true, false and null, within bounds.

1. No tag is read, so nothing is made that the file's own words ask for; Python's objects never.
2. An alias counts as all it stands for, and none stands for itself: a few lines cannot become billions of values.
3. What cannot be read is one `UserError` with its line, before a value is made.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent
from ruamel.yaml.reader import ReaderError

from captioning.quoting import plain, short
from captioning.runlog import UserError

LARGEST = 1 << 18  # bytes; params.yaml has 8 KB
MOST_VALUES = 20_000  # aliases spelt out
DEEPEST = 20  # maps and lists within one another
LONGEST = 1000  # characters of a value
REMEDY = "mend it, or take the file back from git"


class _Constructor(SafeConstructor):
    """Tells where a value stands that is none, as 2001-99-99."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError, OverflowError, AttributeError) as error:
            raise MarkedYAMLError(problem=f"no value: {error}", problem_mark=node.start_mark) from None


def read_yaml(path: Path) -> dict[Any, Any]:
    """The map that `path` holds. Raises `UserError` where it holds no plain YAML in UTF-8, or no map."""
    text = _text(path)
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = _Constructor
    try:
        for line, fault in _faults(YAML(typ="safe", pure=True).parse(text)):
            raise UserError(f"{path}:{line}: not readable as YAML: {fault}; {REMEDY}")
        found = reader.load(text)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: not readable as YAML: {_told(error.problem)}; {REMEDY}") from None
    except ReaderError as error:
        line, fault = text.count("\n", 0, error.position) + 1, f"character U+{error.character:04X} may not stand there"
        raise UserError(f"{path}:{line}: not readable as YAML: {fault}; {REMEDY}") from None
    except (YAMLError, ValueError) as error:
        raise UserError(f"{path}: not readable as YAML: {_told(error)}; {REMEDY}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}:1: no parameters, but {short(found)}; {REMEDY}")
    return found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UserError(f"{path}: not readable as YAML: more than {LARGEST} bytes; {REMEDY}")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: not readable as YAML: {(error.strerror or str(error)).lower()}; {REMEDY}") from None
    except UnicodeDecodeError as error:
        line, byte = content.count(b"\n", 0, error.start) + 1, content[error.start]
        raise UserError(
            f"{path}:{line}: not readable as YAML: byte 0x{byte:02x} is no UTF-8; save it as UTF-8"
        ) from None


def _told(said: Any) -> str:
    told = plain(" ".join(str(said).split()))
    return told if len(told) <= 200 else f"{told[:200]}…"


def _faults(events: Iterator[Any]) -> Iterator[tuple[int, str]]:
    """Lines that hold more than plain data, or more of it than anyone writes."""
    values, open_, anchored = 0, list[tuple[str | None, int]](), dict[str, int]()
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, AliasEvent):
            if event.anchor in {name for name, _ in open_}:
                yield line, f"alias *{event.anchor} stands within what it stands for"
            values += anchored.get(event.anchor, 0)
        elif isinstance(event, (ScalarEvent, CollectionStartEvent)):
            values += 1
            if event.tag is not None:
                yield line, f"tag {short(str(event.tag))}; only plain values are read"
            if isinstance(event, ScalarEvent):
                anchored |= {event.anchor: 1} if event.anchor else {}
                if len(event.value) > LONGEST:
                    yield line, f"a value of {len(event.value)} characters; at most {LONGEST} are read"
            else:
                open_.append((event.anchor, values - 1))
        elif isinstance(event, CollectionEndEvent):
            name, before = open_.pop()
            anchored |= {name: values - before} if name else {}
        if values > MOST_VALUES:
            yield line, f"more than {MOST_VALUES} values, aliases spelt out"
        if len(open_) > DEEPEST:
            yield line, f"more than {DEEPEST} levels of maps and lists"
