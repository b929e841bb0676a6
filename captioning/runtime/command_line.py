"""Wrap the work of the commands that people run."""

import sys
from collections.abc import Callable

from captioning.base.errors import FULL_DISK_ERRORS, UserError
from captioning.base.redaction import install_hooks, redact
from captioning.runtime.notices import silence_known_notices


def prepare_process() -> None:
    """Prepare the process as a stage does, before torch is imported."""
    from captioning.base import instructions  # reads YAML; without it, Ctrl-C is caught from the first moment

    instructions.limit_instructions()
    silence_known_notices()


def exit_status(work: Callable[[], int], interrupted: str) -> int:
    """Return the exit status of `work`; a user's mistake prints one line and gives 1, Ctrl-C `interrupted` and 130. A
    file that cannot be read or written, as on a full disk, is a user's mistake, too."""
    install_hooks()
    try:
        return work()
    except UserError as error:
        print(redact(f"error: {error}"), file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None and error.errno not in FULL_DISK_ERRORS:
            raise
        print(redact(f"error: {error.filename or 'the disk'}: {error.strerror}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
