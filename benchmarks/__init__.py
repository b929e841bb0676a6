"""Each benchmark runs our code and a peer in turn, in one process, and prints medians and their ratio.

Both compute like a stage, with the instructions and the dtype of the active profile's machine.
"""

import sys

from captioning.base import instructions

if sys.argv[0] == "-m":  # `python -m benchmarks.x`, before it imports torch
    instructions.limit_instructions()
