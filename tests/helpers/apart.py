"""Packages of requirements-apart.txt, which have a folder of their own: in every process, the Trainer would import
`datasets`, and the libraries' HTTP client Selenium's trio."""

import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(sys.prefix) / "packages-apart"


def import_apart(name: str) -> Any:
    """Import a module of the folder; skip the test if it is not installed."""
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return pytest.importorskip(name, reason=f"no {name}; make .venv/apart")
