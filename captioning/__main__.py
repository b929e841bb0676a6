"""Caption image files: `python -m captioning IMAGE... --model NAME`."""

import sys

from captioning.runtime.process import prepare_process

if __name__ == "__main__":
    prepare_process()
    from captioning.commands.caption import main

    sys.exit(main())
