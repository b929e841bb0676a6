"""Connect the Hub's client in this process to the stand-in."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from captioning.data import hub
from tests.helpers.hub_server import HubServer


@contextmanager
def quick_server(monkeypatch: pytest.MonkeyPatch, home: str) -> Iterator[HubServer]:
    """Start a stand-in and connect the client, without pauses between attempts."""
    monkeypatch.setattr(hub, "ATTEMPTS", 2)
    monkeypatch.setattr(hub, "PAUSE", 0.0)
    with HubServer() as server, online(server, monkeypatch, home):
        yield server


@contextmanager
def online(server: HubServer, monkeypatch: pytest.MonkeyPatch, home: str, token: str | None = None) -> Iterator[None]:
    """Connect to `server`, anonymously or with `token`, whatever login the machine has."""
    from huggingface_hub import close_session, constants

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", f"{home}/no-token")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", f"{home}/hub-cache")
    close_session()
    try:
        yield
    finally:
        close_session()
