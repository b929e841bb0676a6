"""What every stage does around its work: inputs held still, one clear line for a mistake, its time told."""

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
from types import TracebackType
from typing import Any, NoReturn

from captioning.base import redaction
from captioning.base.errors import Terminated, UserError
from captioning.compute import instructions
from captioning.runtime import inputs, resume
from captioning.runtime.progress import is_main_process, peak_memory

GRACE = 20.0  # seconds, of several processes
BARRED = (errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FULL_IN_WORDS = re.compile(r"I/O error: (.+) \(os error (?:27|28|122)\)")  # as libraries in Rust say it
AGAIN = "give the command again, and it goes on from the last state that was kept"


def stage_main(function: Callable[..., None]) -> Callable[..., None]:
    """Wrap a stage's `main`. What its user can mend becomes its lines on stderr and exit status 1, an interruption one
    line and 128 + its signal; a stage whose inputs moved while it worked has failed. The time goes to stderr."""

    @functools.wraps(function)
    def main(*arguments: Any, **options: Any) -> None:
        begun, before = time.monotonic(), signal.signal(signal.SIGTERM, _terminate)
        if not gc.isenabled():
            _exempt_imports()
        try:
            function(*arguments, **options)
            inputs.require_unchanged_inputs()
        except UserError as error:
            if not is_main_process():
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                time.sleep(GRACE)  # where the first meets the same mistake, this process ends before it repeats it
            _end(f"error: {error}", 1)
        except KeyboardInterrupt as signalled:
            number = signal.SIGTERM if isinstance(signalled, Terminated) else signal.SIGINT
            _end(f"interrupted; {AGAIN}", 128 + number)
        except OSError as error:
            _end(f"error: {_told(error)}", 1)
        except Exception as error:
            if not (full := FULL_IN_WORDS.search(str(error))):
                raise
            _end(f"error: the disk: {full[1].lower()}; make room, then {AGAIN}", 1)
        finally:
            signal.signal(signal.SIGTERM, before)
        if not is_main_process():
            return
        if any(one.owner for one in inputs.noted_inputs) or inputs.FINGERPRINT not in os.environ:
            resume.mark_finished()
        name = function.__module__ if function.__module__ != "__main__" else Path(sys.argv[0]).stem
        print(f"{name}: {time.monotonic() - begun:.1f} s, {peak_memory()}", file=sys.stderr)

    return main


def command(main: Callable[..., None]) -> None:
    """A stage's `main` with the words of the command line, as whole numbers where its parameters are such."""
    wanted = inspect.signature(main).parameters.values()
    try:
        arguments = [one.annotation(word) for one, word in zip(wanted, sys.argv[1:], strict=True)]
    except ValueError:
        usage = " ".join(["python -m", f"stages.{Path(sys.argv[0]).stem}", *(one.name.upper() for one in wanted)])
        _end(f"error: {' '.join(sys.argv[1:]) or 'nothing'} is not what is wanted: {usage}; dvc.yaml has the words", 2)
    main(*arguments)


def _exempt_imports() -> None:
    """Spare the cyclic collector what the imports made, now and at the exit: some 2 s of a process."""
    gc.enable()
    gc.freeze()
    atexit.register(gc.freeze)


def begin(command: Sequence[str]) -> None:
    """What comes before a stage's code is imported; `command`: the process's, program left out."""
    install()
    instructions.limit_instructions()
    try:
        inputs.begin(command)
    except UserError as error:
        _end(f"error: {error}", 1)
    gc.disable()  # while the stage's code is imported, which makes a million objects and no garbage


def install() -> None:
    """From now on, an interruption is one line wherever it strikes, and what is uncaught tells no secret."""
    redaction.install_hooks()
    tell = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print(f"interrupted; {AGAIN}", file=sys.stderr)
        else:
            tell(kind, error, trace)

    sys.excepthook = hook


def _terminate(*_: Any) -> NoReturn:
    raise Terminated


def _told(error: OSError) -> str:
    """What is missing, or full; any other error is nobody's mistake."""
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"{error.filename} is not there; run `dvc repro`, which makes it"
    if error.errno in FULL:
        return f"{error.filename or 'the disk'}: {error.strerror}; make room, then {AGAIN}"
    if error.errno in BARRED and error.filename is not None:
        return f"{error.filename}: {error.strerror}; put it right, then {AGAIN}"
    raise error


def _end(line: str, status: int) -> NoReturn:
    if is_main_process() or status in (1, 2):
        print(redaction.redact(line), file=sys.stderr)
    sys.exit(status)
