"""Silence notices of the libraries that are known to be harmless; all others are printed."""

import logging
import os
import warnings

LOGGED = {  # logger -> start of a message
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",  # it would need a download
    "transformers.integrations.bitsandbytes": "The modules are dequantized in",  # as `machine.dequantise` asks
    "transformers.training_args": "torch.distributed process group is initialized",  # the Trainer knows one process
}
WARNED = r"`is_gradient_checkpointing` is deprecated"  # transformers warns of its own use
NO_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of weights that are loaded or written within a second


def silence_known_notices() -> None:
    """Silence the notices in this process; call it before the libraries are imported."""
    os.environ.setdefault(*NO_BARS)
    warnings.filterwarnings("ignore", message=WARNED)
    for name in LOGGED:
        logging.getLogger(name).addFilter(_is_unknown)


def _is_unknown(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(LOGGED[record.name])
