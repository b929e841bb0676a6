"""A broken download goes on where it broke, what does not match its hash is no file, and every refusal is one line."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioning.base.errors import UserError
from captioning.data import hub
from tests.helpers.hub_server import HubServer
from tests.helpers.online import quick_server

WEIGHTS = os.urandom(1 << 20)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}
SECRET = "hf_" + "planted" * 5


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with quick_server(monkeypatch, str(tmp_path)) as server:
        yield server


def model(name: str = "us/model", revision: str = "main") -> hub.Repository:
    return hub.Repository("model", name, revision, "do otherwise")


def test_a_fetch_cut_short_goes_on_where_it_was(server: HubServer, tmp_path: Path) -> None:
    commit = server.add("model", "us/model", FILES)
    snapshot = hub.resolve_revision(model())
    assert snapshot.commit == commit
    server.cuts["model.safetensors"] = 700_000
    with pytest.raises(UserError, match=r"cannot be reached.*what was fetched is kept"):
        hub.fetch_files(snapshot, snapshot.files, tmp_path / "got")
    first = server.sent("model.safetensors")
    (kept,) = (tmp_path / "got").glob("model.safetensors.*.partial")
    assert 700_000 - hub.CHUNK < kept.stat().st_size <= 700_000
    size = kept.stat().st_size
    server.cuts.clear()
    places = hub.fetch_files(hub.resolve_revision(model()), snapshot.files, tmp_path / "got")
    again = server.sent("model.safetensors") - first
    assert again == len(WEIGHTS) - size
    assert places["model.safetensors"].read_bytes() == WEIGHTS
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == sorted(FILES)
    hub.fetch_files(snapshot, snapshot.files, tmp_path / "got")
    assert server.sent("model.safetensors") == first + again, "what is there is not fetched again"


def test_a_connection_that_keeps_breaking_is_taken_up_while_it_brings_something(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("model", "us/model", FILES)
    moving = iter(range(200_000, len(WEIGHTS) + 400_000, 200_000))

    class Moving(dict):
        def __getitem__(self, name: str) -> int:
            return next(moving)

    server.cuts = Moving({"model.safetensors": 0})
    snapshot = hub.resolve_revision(model())
    places = hub.fetch_files(snapshot, snapshot.files, tmp_path)
    assert places["model.safetensors"].read_bytes() == WEIGHTS
    assert server.sent("model.safetensors") < len(WEIGHTS) + 7 * hub.CHUNK


def test_the_partial_file_of_another_revision_is_not_continued(server: HubServer, tmp_path: Path) -> None:
    server.add("model", "us/model", FILES)
    server.cuts["model.safetensors"] = 500_000
    snapshot = hub.resolve_revision(model())
    with pytest.raises(UserError):
        hub.fetch_files(snapshot, snapshot.files, tmp_path)
    server.cuts.clear()
    other = os.urandom(len(WEIGHTS))
    server.add("model", "us/model", FILES | {"model.safetensors": other})
    snapshot = hub.resolve_revision(model())
    assert hub.fetch_files(snapshot, snapshot.files, tmp_path)["model.safetensors"].read_bytes() == other


@pytest.mark.parametrize("name", FILES)
def test_what_has_another_hash_is_no_file(server: HubServer, tmp_path: Path, name: str) -> None:
    """A Git LFS file by its SHA-256, any other by its Git blob id; the length is right."""
    server.add("model", "us/model", FILES)
    snapshot = hub.resolve_revision(model())
    if name == "config.json":
        server.repositories["model", "us/model"].commits[snapshot.commit][name] = b"[]"
    else:
        for key in server.stored:
            server.stored[key] = (name, bytes(len(WEIGHTS)))
    with pytest.raises(UserError, match=f"{name} came with another hash"):
        hub.fetch_files(snapshot, snapshot.files, tmp_path / "got")
    assert name not in [path.name for path in (tmp_path / "got").iterdir()]
    assert not list((tmp_path / "got").glob("*.partial"))


def test_a_damaged_file_that_is_there_already_is_fetched_again(server: HubServer, tmp_path: Path) -> None:
    server.add("model", "us/model", FILES)
    snapshot = hub.resolve_revision(model())
    (tmp_path / "model.safetensors").write_bytes(bytes(len(WEIGHTS)))
    assert hub.fetch_files(snapshot, snapshot.files, tmp_path)["model.safetensors"].read_bytes() == WEIGHTS


def test_the_token_goes_to_the_hub_alone(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """Git LFS files come from another host, which must not see it."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    server.add("model", "us/model", FILES, gated=True, readers={SECRET})
    snapshot = hub.resolve_revision(model())
    hub.fetch_files(snapshot, snapshot.files, tmp_path)
    at_hub = [one for one in server.served if one.host.startswith("127.0.0.1")]
    elsewhere = [one for one in server.served if not one.host.startswith("127.0.0.1")]
    assert {one.token for one in at_hub} == {SECRET} and {one.token for one in elsewhere} == {None}
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


REFUSALS = [
    ("us/gated", "main", None, "it is gated and there is no token; accept its licence on {url}/us/gated, then set HF"),
    ("us/gated", "main", "hf_stranger", "the token has no access; accept the licence on {url}/us/gated with its"),
    ("us/gated", "main", SECRET, "the Hub refuses the token; make a new one on {url}/settings/tokens"),
    ("us/model", "none", None, "it has no revision 'none'; {url}/us/model/tree/main shows"),
    ("us/nothing", "main", None, "there is no {url}/us/nothing, or it is private and needs a token"),
    ("us/nothing", "main", "hf_stranger", "there is no {url}/us/nothing, or it is private and this token cannot"),
    ("a/b/c", "main", None, "that is no repository's name; write owner/name"),
]


@pytest.mark.parametrize(("name", "revision", "token", "said"), REFUSALS)
def test_each_refusal_is_one_line_with_its_remedy(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, name: str, revision: str, token: str | None, said: str
) -> None:
    server.add("model", "us/model", FILES)
    server.add("model", "us/gated", FILES, gated=True, readers={"hf_reader"})
    server.known_tokens |= {"hf_stranger"}
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError) as caught:
        hub.resolve_revision(model(name, revision))
    line = str(caught.value)
    assert line.startswith(f"weights {name} cannot be had: {said.format(url=server.url)}")
    assert line.endswith("; or do otherwise") and "\n" not in line
    assert SECRET not in line and caught.value.__cause__ is None


def test_offline_unreachable_and_out_of_order(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    server.add("model", "us/model", FILES)
    snapshot = hub.resolve_revision(model())
    server.status = 503
    with pytest.raises(UserError, match="the Hub answers 503; try again later"):
        hub.fetch_files(snapshot, snapshot.files, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
            hub.resolve_revision(model())
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 cannot be reached \(ConnectError\)"):
        hub.resolve_revision(model())


def test_a_full_disk_is_told_before_and_while_it_fills(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add("model", "us/model", FILES)
    snapshot = hub.resolve_revision(model())
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(UserError, match=r"has 0\.0 GB free and needs 0\.0"):
            hub.fetch_files(snapshot, snapshot.files, tmp_path)
    assert server.sent("model.safetensors") == 0

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hub, "_receive_part", full)
    with pytest.raises(UserError, match=r"the disk is full at .*make room"):
        hub.fetch_files(snapshot, snapshot.files, tmp_path)


@pytest.mark.parametrize("path", ["../over.json", "/over.json", "a/../../over.json", "a\\over.json"])
def test_a_name_that_climbs_is_refused(server: HubServer, tmp_path: Path, path: str) -> None:
    server.add("model", "us/model", {path: b"{}"})
    snapshot = hub.resolve_revision(model())
    with pytest.raises(UserError, match="would lie outside"):
        hub.fetch_files(snapshot, snapshot.files, tmp_path / "got")
    assert not (tmp_path / "over.json").exists()
