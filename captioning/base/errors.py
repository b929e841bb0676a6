"""Exceptions that end a run early."""

import errno

FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class UserError(Exception):
    """A mistake that the user can fix: the message names the file, the line or key, the value and the remedy."""


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""
