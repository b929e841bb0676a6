"""Captions for one's own pictures: `python -m captioning IMAGE... --model NAME`."""

import sys

from captioning import instructions
from captioning.notices import silence_known_notices

if __name__ == "__main__":
    instructions.limit()  # as a stage does, before torch is imported
    silence_known_notices()
    from captioning.command import main

    sys.exit(main())
