"""Wrap the work of each stage: unchanged inputs, one clear line for a mistake, its time."""

import atexit
import errno
import functools
import gc
import inspect
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from captioning.base import instructions
from captioning.base.errors import FULL_DISK_ERRORS, Terminated, UserError
from captioning.runtime import inputs, redaction, resume
from captioning.runtime.progress import is_main_process, peak_memory

GRACE = 20.0  # seconds
ACCESS_ERRORS = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EROFS)
FULL_DISK_MESSAGE = re.compile(r"I/O error: (.+) \(os error (?:27|28|122)\)")  # of libraries in Rust
AGAIN = "give the command again, and it goes on from its last saved state"


def stage_main(function: Callable[..., None]) -> Callable[..., None]:
    """Wrap a stage's `main`: check its inputs at the end, and print its time to stderr. A user's mistake is one message
    and exit status 1, an interruption one line and 128 + its signal."""

    @functools.wraps(function)
    def main(*arguments: Any, **options: Any) -> None:
        start, handler = time.monotonic(), signal.signal(signal.SIGTERM, _raise_terminated)
        if not gc.isenabled():  # exempt what the imports made, now and at exit: this saves about 2 s per process
            gc.enable()
            gc.freeze()
            atexit.register(gc.freeze)
        try:
            function(*arguments, **options)
            inputs.require_unchanged_inputs()
        except (Exception, KeyboardInterrupt) as error:
            _exit_with(error)
        finally:
            signal.signal(signal.SIGTERM, handler)
        if "ROLE_RANK" not in os.environ:  # a process that torchrun started leaves this to the one that ran torchrun
            resume.mark_finished()
        if is_main_process():
            name = Path(inspect.getfile(function)).stem
            print(f"{name}: {time.monotonic() - start:.1f} s, {peak_memory()}", file=sys.stderr)

    return main


def command(main: Callable[..., None]) -> None:
    """Call a stage's `main` with the words of the command line, converted to the types of its parameters."""
    parameters = inspect.signature(main).parameters.values()
    try:
        arguments = [parameter.annotation(word) for parameter, word in zip(parameters, sys.argv[1:], strict=True)]
    except ValueError:
        names = " ".join(parameter.name.upper() for parameter in parameters)
        usage = f"usage: python -m stages.{Path(sys.argv[0]).stem} {names}".rstrip()
        _end(f"error: wrong arguments {' '.join(sys.argv[1:])!r}; {usage}; dvc.yaml has the values", 2)
    main(*arguments)


def begin(command: Sequence[str]) -> None:
    """Prepare the process before a stage's code is imported; `command`: the process's, without the program."""
    redaction.install_hooks()
    instructions.limit_instructions()
    try:
        inputs.begin(command)
    except UserError as error:
        _end(f"error: {error}", 1)
    gc.disable()  # while the stage's code is imported, which makes a million objects and no garbage


def _raise_terminated(*_: Any) -> NoReturn:
    raise Terminated


def _exit_with(error: BaseException) -> NoReturn:
    """Exit with one message for a mistake or an interruption; raise any other error again."""
    if isinstance(error, KeyboardInterrupt):
        number = signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT
        _end(f"interrupted; {AGAIN}", 128 + number)
    message = _explain(error)
    if message is None:
        raise error
    if not is_main_process():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(GRACE)  # if the main process makes the same mistake, it ends this one before it prints it again
    _end(f"error: {message}", 1)


def _explain(error: BaseException) -> str | None:
    """Describe a mistake that the user can fix."""
    if isinstance(error, UserError):
        return str(error)
    if match := FULL_DISK_MESSAGE.search(str(error)):
        return f"the disk: {match[1].lower()}; make room, then {AGAIN}"
    if isinstance(error, OSError) and error.errno in FULL_DISK_ERRORS:
        return f"{error.filename or 'the disk'}: {error.strerror}; make room, then {AGAIN}"
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"{error.filename} does not exist; run `dvc repro`, which makes it"
    if isinstance(error, OSError) and error.filename and error.errno in ACCESS_ERRORS:
        return f"{error.filename}: {error.strerror}; correct that, then {AGAIN}"
    return None


def _end(line: str, status: int) -> NoReturn:
    if is_main_process() or status in (1, 2):
        print(redaction.redact(line), file=sys.stderr)
    sys.exit(status)
