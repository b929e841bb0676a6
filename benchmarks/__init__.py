"""Each benchmark runs its subject and a peer in turn, in one process, and prints medians and their ratio.

Both compute as a stage does: with the instructions and the dtype of the active profile's machine.
"""

import sys

from captioning.compute import instructions

if sys.argv[0] == "-m":  # `python -m benchmarks.x`, before it imports torch
    instructions.limit_instructions()
