"""One script for each stage: it reads parameters, calls the library and writes outputs.

Before a stage's code is imported, the inputs that it declares in dvc.yaml are hashed (runtime/inputs.py), and the
instructions and threads of the numerical libraries are set (base/instructions.py).
"""

import os
import sys

from captioning.base import instructions
from captioning.runtime import stage
from captioning.runtime.process import silence_known_notices

os.environ.setdefault(*instructions.SPIN)  # for tests and benchmarks, too
os.environ.setdefault(*instructions.NO_COMPILER)
silence_known_notices()
if sys.argv[0] == "-m":  # `python -m stages.x`, before x is imported
    stage.begin(sys.orig_argv[sys.orig_argv.index("-m") :])
