"""Run the page's server on a socket that is open already."""

import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import gradio
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from captioning.serve.page import FONTS, MEGABYTE, STYLE, build_page

# The page's scripts, styles and data come from this server; Gradio's own are inline and evaluated.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; frame-ancestors 'none'"
)
Answer = Callable[[Request], Awaitable[Response]]


def serve(
    describe: Callable[[bytes], str],
    title: str,
    uploads: Path,
    megabytes: int,
    listener: socket.socket,
    hosts: Sequence[str] | None,
) -> None:
    """Serve the page until an interrupt; `hosts`: the names under which browsers may ask for it, None for all."""
    page = build_page(describe, title, uploads, megabytes)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.middleware("http")(_add_policy)
    if hosts:  # otherwise a name of another site that resolves to this machine would do
        app.add_middleware(
            TrustedHostMiddleware, allowed_hosts=[f"[{name}]" if ":" in name else name for name in hosts]
        )
    gradio.mount_gradio_app(
        app,
        page,
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=megabytes * MEGABYTE,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=gradio.themes.Base(font=FONTS, font_mono=("monospace",)),
        css_paths=STYLE,
    )
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


async def _add_policy(request: Request, answer: Answer) -> Response:
    response = await answer(request)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Referrer-Policy"] = "no-referrer"
    return response
