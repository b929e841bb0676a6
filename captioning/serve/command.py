"""Serve a page on this machine where people drop a picture and read each row's caption: `python -m captioning.serve`.

1. The page is for this machine alone unless `--host` says otherwise. It is never shared through a tunnel: Gradio's
   `share` is part of its own launcher, which is not used here.
2. Uploads are limited in size, lie in a temporary folder that only this user can read, and are removed as soon as they
   are read (serve/page.py). Neither Gradio nor the page in the browser asks anything from another host.
3. Gradio is optional (requirements-serve.txt).
"""

import argparse
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from captioning.base.errors import Terminated, UserError
from captioning.commands.caption import BANDS_HELP, DEVICE_HELP, parse_bands, parse_device, parse_positive_int
from captioning.commands.trained_rows import TrainedRow, find_row, list_adapters
from captioning.params.load import load_params
from captioning.params.sections import Params
from captioning.runtime.process import exit_status
from captioning.runtime.progress import write_stdout

INSTALL = "pip install --no-deps -r requirements-serve.txt"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
GRADIO = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False", "GRADIO_MCP_SERVER": "False"}
MAX_PORT = 65535

EPILOG = """examples:
  python -m captioning.serve
  python -m captioning.serve --model mix --model scst-mix-greedy --port 8000"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = make_parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    return exit_status(lambda: run(options), "stopped")


def _terminate(*_: Any) -> None:
    raise Terminated


def run(options: argparse.Namespace) -> int:
    """Serve the page until an interrupt. Raises `UserError`."""
    if find_spec("gradio") is None:
        raise UserError(f"Gradio is not installed; {INSTALL}")
    params = load_params()
    rows = find_rows(options.model, params)
    with open_socket(options.host, options.port) as listener, tempfile.TemporaryDirectory() as folder:
        os.environ.update(GRADIO | {"GRADIO_TEMP_DIR": folder})  # before Gradio is imported
        from captioning.serve.page import Describer
        from captioning.serve.rows import load_rows
        from captioning.serve.server import serve

        describer = Describer(load_rows(rows, options.device), params.decoding.maximum_tokens, options.bands)
        title = f"Greedy captions of {', '.join(row.name for row in rows)}."
        if params.active.checkpoints.origin == "miniature":
            title += f" A small stand-in for PaliGemma-3B writes them (profile {params.profile})."
        write_stdout(f"{address(listener, options.host)}\n")
        if options.host not in LOOPBACK:
            print("note: whoever reaches this address can use the page; it has no password", file=sys.stderr)
        hosts = LOOPBACK if options.host in LOOPBACK else None
        serve(describer, title, Path(folder), options.upload_limit, listener, hosts)
    return 0


def find_rows(names: Sequence[str] | None, params: Params) -> list[TrainedRow]:
    """Return the rows of these names, each once, or all trained rows. Raises `UserError`."""
    adapters = list_adapters()
    rows = [find_row(name, params) for name in names or adapters]
    if not rows:
        raise UserError("no row is trained here; run `dvc repro` or `dvc pull`, or name a checkpoint with --model")
    return list({row.name: row for row in rows}.values())


def open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at `host` and `port`. Raises `UserError`."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise UserError(f"--host {host} --port {port}: {reason.lower()}; choose others") from None


def address(listener: socket.socket, host: str) -> str:
    """Return the address of the page."""
    port = listener.getsockname()[1]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m captioning.serve",
        description="Serve a page on this machine: drop a picture, read each row's caption with probabilities.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    model = "a row as for `python -m captioning`; may be given several times (default: every trained row)"
    add("--model", action="append", metavar="ROW", help=model)
    add("--host", default=LOOPBACK[0], help="address to listen at (default: %(default)s, this machine alone)")
    add("--port", type=parse_port, default=7860, help="0: any free one (default: %(default)s)")
    add("--upload-limit", type=parse_positive_int, default=50, metavar="MB", help="of a picture (default: %(default)s)")
    add("--bands", type=parse_bands, metavar="R,G,B", help=BANDS_HELP)
    add("--device", type=parse_device, help=DEVICE_HELP)
    return parser


def parse_port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to {MAX_PORT}")
    return int(text)
