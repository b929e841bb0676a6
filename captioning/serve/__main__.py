"""Serve a page that captions pictures: `python -m captioning.serve --model ROW`."""

import sys

from captioning.base import instructions
from captioning.runtime.notices import silence_known_notices

if __name__ == "__main__":
    instructions.limit_instructions()  # as a stage does, before torch is imported
    silence_known_notices()
    from captioning.serve.command import main

    sys.exit(main())
