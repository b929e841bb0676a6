"""Known notices are silenced by name, in a process of their own; others are heard."""

import subprocess
import sys
from pathlib import Path

import pytest

from captioning.runtime.notices import LOGGED

ROOT = Path(__file__).parents[2]
CODE = """
import logging, sys, warnings
logging.basicConfig()
import stages
logging.getLogger(sys.argv[1]).warning(sys.argv[2] + " ...")
warnings.warn(sys.argv[2] + " ...", FutureWarning)
"""


def heard(logger: str, text: str) -> str:
    command = [sys.executable, "-c", CODE, logger, text]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr


@pytest.mark.parametrize(("logger", "text"), LOGGED.items())
def test_a_known_notice_is_silent_where_it_is_known(logger: str, text: str) -> None:
    assert f"WARNING:{logger}" not in heard(logger, text)
    assert f"WARNING:{logger}:Loss is" in heard(logger, "Loss is")
    assert f"WARNING:other:{text}" in heard("other", text)


def test_a_known_warning_is_silent() -> None:
    assert "FutureWarning" not in heard("other", "`is_gradient_checkpointing` is deprecated and will be removed")
    assert "FutureWarning" in heard("other", "`something` is deprecated")
