"""Read YAML as plain data: maps, lists, text, numbers, true, false and null; a tag never makes an object."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.reader import ReaderError

from captioning.base.errors import UserError
from captioning.base.quoting import escape, shorten

MAX_MESSAGE = 200  # characters of a parser's message
REMEDY = "correct it, or restore the file from git"


def read_yaml(path: Path) -> dict[Any, Any]:
    """Read the map in `path`. Raises `UserError` if it is missing, no plain YAML in UTF-8, or no map."""
    try:
        content = path.read_bytes()
        values = YAML(typ="safe", pure=True).load(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file here; go to the project's folder, or restore it from git") from None
    except OSError as error:
        raise _fault(f"{path}", error.strerror or error) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _fault(f"{path}:{line}", f"byte 0x{content[error.start]:02x} is not UTF-8") from None
    except MarkedYAMLError as error:
        raise _fault(f"{path}:{error.problem_mark.line + 1 if error.problem_mark else 1}", error.problem) from None
    except ReaderError as error:
        line = content.decode("utf-8-sig").count("\n", 0, error.position) + 1
        raise _fault(f"{path}:{line}", f"character U+{error.character:04X} is not allowed") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise _fault(f"{path}", error) from None
    if not isinstance(values, dict):
        raise UserError(f"{path}:1: no parameters, but {shorten(values)}; {REMEDY}")
    return values


def _fault(location: str, reason: object) -> UserError:
    text = escape(" ".join(str(reason).split()))
    text = text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]}…"
    return UserError(f"{location}: not readable as YAML: {text}; {REMEDY}")
