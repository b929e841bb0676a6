"""Captions for one's own pictures: `python -m captioning IMAGE... --model NAME`."""

import logging
import sys

from captioning import instructions

if __name__ == "__main__":
    instructions.limit()  # as a stage does, before torch is imported
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    from captioning.command import main

    sys.exit(main())
