"""Packages of requirements-apart.txt, which have a folder of their own.

If they were among the others, the Trainer would import `datasets` in every process, and the HTTP client would import
Selenium's trio.
"""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(sys.prefix) / "packages-apart"


def import_apart(name: str) -> Any:
    """Import a module of the folder; skip the test if there is no folder."""
    if not FOLDER.is_dir():
        pytest.skip(f"no {name}; make .venv/apart")
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return importlib.import_module(name)
