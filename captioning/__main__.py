"""Caption image files: `python -m captioning IMAGE... --model NAME`."""

import sys

from captioning.base import instructions
from captioning.runtime.notices import silence_known_notices

if __name__ == "__main__":
    instructions.limit_instructions()  # as a stage does, before torch is imported
    silence_known_notices()
    from captioning.commands.caption import main

    sys.exit(main())
