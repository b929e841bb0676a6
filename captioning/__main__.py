"""Captions for one's own pictures: `python -m captioning IMAGE... --model NAME`."""

import logging
import os
import sys

from captioning.command import main

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as in stages/__init__.py, and before torch is imported, too
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

if __name__ == "__main__":
    sys.exit(main())
