"""Serve a page that captions pictures: `python -m captioning.serve --model ROW`."""

import sys

from captioning.runtime.process import prepare_process

if __name__ == "__main__":
    prepare_process()
    from captioning.serve.command import main

    sys.exit(main())
