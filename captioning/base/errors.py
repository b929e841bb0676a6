"""Exceptions that end a run early."""


class UserError(Exception):
    """A mistake that the user can fix: the message names the file, the line or key, the value and the remedy."""


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""
