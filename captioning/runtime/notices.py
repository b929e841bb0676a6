"""Known notices of the libraries, silenced by name: whatever else they say is heard."""

import logging
import os
import warnings

LOGGED = {  # by logger: how a message begins
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",  # that would be fetched
    "transformers.integrations.bitsandbytes": "The modules are dequantized in",  # as `machine.dequantise` asks for
    "transformers.training_args": "torch.distributed process group is initialized",  # the Trainer knows of one process
}
WARNED = r"`is_gradient_checkpointing` is deprecated"  # transformers warns of its own use
NO_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # of weights that are loaded or written in a second


def silence_known_notices() -> None:
    """Silence them for this process; call it before the libraries are imported."""
    os.environ.setdefault(*NO_BARS)
    warnings.filterwarnings("ignore", message=WARNED)
    for name in LOGGED:
        logging.getLogger(name).addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(LOGGED[record.name])
