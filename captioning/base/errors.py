"""What ends a run before its end."""


class UserError(Exception):
    """A mistake its user can mend: the message names file, line or key, value and remedy."""


class Terminated(KeyboardInterrupt):
    """SIGTERM."""
