"""Copies of the project in a folder of their own: for the tests, and for the rehearsal."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
AUTHOR = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Copy"), ("EMAIL", "copy@example.org"))
}


def copy_files(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """What git tracks and what it does not ignore, so that a file which was forgotten shows."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in names:
        source = ROOT / name
        if source.is_file() and wanted(name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name)


def edit_yaml(path: Path, edit: Callable[[Any], None]) -> None:
    """Let `edit` change a file; its comments stay."""
    yaml = YAML()
    yaml.width = 200
    content = yaml.load(path)
    edit(content)
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def set_values(path: Path, values: dict[str, Any]) -> None:
    """Set `values`, by dotted key. Raises `KeyError` where the file has no such key."""

    def edit(content: Any) -> None:
        for key, value in values.items():
            *section, last = key.split(".")
            within = content
            for part in section:
                within = within[part]
            if last not in within:
                raise KeyError(f"{path.name} has no {key} any more")
            within[last] = value

    edit_yaml(path, edit)
