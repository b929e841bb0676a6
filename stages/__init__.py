"""One script a stage: read parameters, call the library, write outputs.

Before its code is imported, what a stage declares in dvc.yaml is hashed (captioning/inputs.py).

Threads that wait for one another spin for some microseconds and then sleep. OpenMP's default spins a hundred times
longer: beside another busy process a training step then takes a hundred times its time; never spinning makes a step
three times slower on a quiet machine. No number depends on it. It must be set before torch is imported.
"""

import logging
import os
import sys

from captioning import inputs

if sys.argv[0] == "-m":  # `python -m stages.x`, whose code is not read yet
    inputs.begin(sys.orig_argv[sys.orig_argv.index("-m") :])
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it recommends a kernel that would be fetched at run time
