"""Merge a row's adapter: `python -m captioning.export ROW --merged FOLDER`."""

import sys

from captioning.runtime.process import prepare_process

if __name__ == "__main__":
    prepare_process()
    from captioning.export.command import main

    sys.exit(main())
