"""Copies of the project for the tests and for the rehearsal."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
ROLES, VALUES = ("AUTHOR", "COMMITTER"), {"NAME": "Copy", "EMAIL": "copy@example.org"}
AUTHOR = {f"GIT_{role}_{field}": value for role in ROLES for field, value in VALUES.items()}


def copy_files(folder: Path, is_included: Callable[[str], bool] = lambda name: True) -> None:
    """Copy the files that git tracks or does not ignore, so that a forgotten file becomes visible."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        source = ROOT / name
        if source.is_file() and is_included(name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)


def edit_yaml(path: Path, edit: Callable[[Any], None]) -> None:
    """Apply `edit` to a file; its comments stay."""
    yaml = YAML()
    yaml.width = 200
    content = yaml.load(path)
    edit(content)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def set_values(path: Path, values: dict[str, Any]) -> None:
    """Set `values`, by dotted key. Raises `KeyError` if the file has no such key."""

    def edit(content: Any) -> None:
        for key, value in values.items():
            *sections, name = key.split(".")
            section = content
            for key_part in sections:
                section = section[key_part]
            if name not in section:
                raise KeyError(f"{path.name} has no {key}")
            section[name] = value

    edit_yaml(path, edit)
