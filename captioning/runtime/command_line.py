"""What every command that people run does around its work."""

import sys
from collections.abc import Callable

from captioning.base.errors import UserError
from captioning.base.redaction import install_hooks, redact


def exit_status(work: Callable[[], int], interrupted: str) -> int:
    """Run a command's `work` and return its exit status; a user's mistake is one line and 1, Ctrl-C `interrupted` and
    130."""
    install_hooks()
    try:
        return work()
    except UserError as error:
        print(redact(f"error: {error}"), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
