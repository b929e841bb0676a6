"""Known notices are silent, all others are printed."""

import subprocess
import sys
from pathlib import Path

from captioning.runtime.process import KNOWN_LOG_MESSAGES

ROOT = Path(__file__).parents[2]
CODE = """
import logging, warnings
from captioning.runtime.process import KNOWN_LOG_MESSAGES
logging.basicConfig()
import stages
for logger, text in KNOWN_LOG_MESSAGES.items():
    for name, message in ((logger, text), (logger, "Loss is"), ("other", text)):
        logging.getLogger(name).warning(f"{message} ...")
for text in ("`is_gradient_checkpointing` is deprecated and will be removed", "`something` is deprecated"):
    warnings.warn(text, FutureWarning)
"""


def test_only_known_notices_are_silent() -> None:
    command = [sys.executable, "-c", CODE]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr.splitlines()
    logged = [f"WARNING:{logger}:Loss is ...\nWARNING:other:{text} ..." for logger, text in KNOWN_LOG_MESSAGES.items()]
    assert [line for line in lines if line.startswith("WARNING:")] == "\n".join(logged).splitlines()
    warned = [line.rpartition("FutureWarning: ")[2] for line in lines if "FutureWarning" in line]
    assert warned == ["`something` is deprecated"]
