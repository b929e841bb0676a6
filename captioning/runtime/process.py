"""Prepare a process of the project, and end a command with one line."""

import logging
import os
import sys
import warnings
from collections.abc import Callable

from captioning.base.errors import FULL_DISK_ERRORS, UserError
from captioning.runtime.redaction import install_hooks, redact

KNOWN_LOG_MESSAGES = {  # logger -> start of a message
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",  # it would need a download
    "transformers.integrations.bitsandbytes": "The modules are dequantized in",  # as `machine.dequantise` asks
    "transformers.training_args": "torch.distributed process group is initialized",  # the Trainer knows one process
}
KNOWN_WARNING = r"`is_gradient_checkpointing` is deprecated"  # transformers warns of its own use
NO_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # all of the Hub's client; data/hub.py has bars of its own


def prepare_process() -> None:
    """Prepare the process as a stage does, before torch is imported."""
    from captioning.base import instructions  # imported here: loading YAML first would delay the handling of Ctrl-C

    instructions.limit_instructions()
    silence_known_notices()


def silence_known_notices() -> None:
    """Silence messages of libraries that a user cannot act on; call it before the libraries are imported."""
    os.environ.setdefault(*NO_BARS)
    warnings.filterwarnings("ignore", message=KNOWN_WARNING)
    for name in KNOWN_LOG_MESSAGES:
        logging.getLogger(name).addFilter(_is_unknown)


def _is_unknown(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(KNOWN_LOG_MESSAGES[record.name])


def exit_status(work: Callable[[], int], interrupted: str) -> int:
    """Return the exit status of `work`: 1 after one printed line for a user's mistake, 130 after `interrupted` for
    Ctrl-C. A file that cannot be read or written, as on a full disk, is a user's mistake, too."""
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
