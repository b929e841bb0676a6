"""One script a stage: read parameters, call the library, write outputs.

Before its code is imported, what a stage declares in dvc.yaml is hashed (runtime/inputs.py), and the numerical
libraries are told of instructions and threads (compute/instructions.py).
"""

import os
import sys

from captioning.compute import instructions
from captioning.runtime import stage
from captioning.runtime.notices import silence_known_notices

os.environ.setdefault(*instructions.SPIN)  # for tests and benchmarks, too
os.environ.setdefault(*instructions.NO_COMPILER)
silence_known_notices()
if sys.argv[0] == "-m":  # `python -m stages.x`, whose code is not read yet
    stage.begin(sys.orig_argv[sys.orig_argv.index("-m") :])
