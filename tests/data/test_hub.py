"""An interrupted download continues, files with a wrong hash are refused, and each refusal is one line."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from captioning.base.errors import UserError
from captioning.data import hub
from captioning.data.revisions import NOTE
from tests.helpers.hub_server import HubServer
from tests.helpers.online import quick_server

WEIGHTS = os.urandom(1 << 20)
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}
NOWHERE = Path("nothing-was-fetched-here")
SECRET = "hf_" + "planted" * 5


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with quick_server(monkeypatch, str(tmp_path)) as server:
        server.add("model", "us/model", FILES)
        yield server


def model(name: str = "us/model", revision: str = "main") -> hub.Repository:
    return hub.Repository("model", name, revision, "do otherwise")


def fetch_weights(folder: Path) -> bytes:
    snapshot = hub.resolve_revision(model(), NOWHERE)
    return hub.fetch_files(snapshot, snapshot.files, folder)["model.safetensors"].read_bytes()


def test_an_interrupted_fetch_continues_and_only_damaged_files_are_fetched_again(
    server: HubServer, tmp_path: Path
) -> None:
    server.cuts["model.safetensors"] = 700_000
    with pytest.raises(UserError, match="cannot reach"):
        fetch_weights(tmp_path / "models")
    first = server.sent("model.safetensors")
    (partial,) = (tmp_path / "models").glob("model.safetensors.*.partial")
    size = partial.stat().st_size
    assert 700_000 - hub.CHUNK < size <= 700_000
    server.cuts.clear()
    for _ in range(2):
        assert fetch_weights(tmp_path / "models") == WEIGHTS
        assert server.sent("model.safetensors") - first == len(WEIGHTS) - size
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [NOTE, *sorted(FILES)]
    (tmp_path / "models/model.safetensors").write_bytes(bytes(len(WEIGHTS)))
    assert fetch_weights(tmp_path / "models") == WEIGHTS


def test_a_fetch_reconnects_while_attempts_bring_bytes(server: HubServer, tmp_path: Path) -> None:
    offsets = iter(range(200_000, len(WEIGHTS) + 400_000, 200_000))

    class MovingCuts(dict):
        def __getitem__(self, name: str) -> int:
            return next(offsets)

    server.cuts = MovingCuts({"model.safetensors": 0})
    assert fetch_weights(tmp_path) == WEIGHTS
    assert server.sent("model.safetensors") < len(WEIGHTS) + 7 * hub.CHUNK


def test_the_partial_file_of_another_revision_is_not_continued(server: HubServer, tmp_path: Path) -> None:
    server.cuts["model.safetensors"] = 500_000
    with pytest.raises(UserError):
        fetch_weights(tmp_path)
    server.cuts.clear()
    other = os.urandom(len(WEIGHTS))
    server.add("model", "us/model", FILES | {"model.safetensors": other})
    assert fetch_weights(tmp_path) == other


@pytest.mark.parametrize("name", FILES)
def test_a_file_with_another_hash_is_refused(server: HubServer, tmp_path: Path, name: str) -> None:
    """A Git LFS file by its SHA-256, any other by its Git blob id; the length is right."""
    snapshot = hub.resolve_revision(model(), NOWHERE)
    server.repositories["model", "us/model"].commits[snapshot.commit]["config.json"] = b"[]"
    server.stored = dict.fromkeys(server.stored, ("model.safetensors", bytes(len(WEIGHTS))))
    with pytest.raises(UserError, match=f"the hash of {name} is not"):
        hub.fetch_files(snapshot, [file for file in snapshot.files if file.path == name], tmp_path / "models")
    assert [path.name for path in (tmp_path / "models").iterdir()] == [NOTE]


def test_only_the_hub_gets_the_token(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another host, which serves Git LFS files, must not see it."""
    monkeypatch.setenv("HF_TOKEN", SECRET)
    server.add("model", "us/gated", FILES, gated=True, readers={SECRET})
    snapshot = hub.resolve_revision(model("us/gated"), NOWHERE)
    hub.fetch_files(snapshot, snapshot.files, tmp_path)
    tokens = {(request.host.startswith("127.0.0.1"), request.token) for request in server.served}
    assert tokens == {(True, SECRET), (False, None)}
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


REFUSALS = [
    ("us/gated", "main", None, "it is gated; accept its licence on {url}/us/gated, then set HF_TOKEN"),
    ("us/gated", "main", "hf_stranger", "the token has no access; accept the licence on {url}/us/gated"),
    ("us/gated", "main", SECRET, "the Hub refuses the token; make a new one on {url}/settings/tokens"),
    ("us/model", "none", None, "it has no revision 'none'; {url}/us/model/tree/main shows"),
    ("us/nothing", "main", None, "{url}/us/nothing does not exist, or it is private and needs a token"),
    ("us/nothing", "main", "hf_stranger", "{url}/us/nothing does not exist, or it is private and this token cannot"),
    ("a/b/c", "main", None, "this is not the name of a repository; write owner/name"),
]


@pytest.mark.parametrize(("name", "revision", "token", "reason"), REFUSALS)
def test_each_refusal_is_one_line_with_a_remedy(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, name: str, revision: str, token: str | None, reason: str
) -> None:
    server.add("model", "us/gated", FILES, gated=True, readers={"hf_reader"})
    server.known_tokens |= {"hf_stranger"}
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError) as caught:
        hub.resolve_revision(model(name, revision), NOWHERE)
    line = str(caught.value)
    assert line.startswith(f"cannot fetch weights {name}: {reason.format(url=server.url)}")
    assert line.endswith("; or do otherwise") and "\n" not in line
    assert SECRET not in line and caught.value.__cause__ is None


def test_an_offline_or_unreachable_hub_and_one_out_of_order_are_reported(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    snapshot = hub.resolve_revision(model(), NOWHERE)
    server.status = 503
    with pytest.raises(UserError, match="the Hub answers 503; try again"):
        hub.fetch_files(snapshot, snapshot.files, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
            hub.resolve_revision(model(), NOWHERE)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"cannot reach http://127\.0\.0\.1:9 \(ConnectError\)"):
        hub.resolve_revision(model(), NOWHERE)


def cache_with_the_hubs_client(name: str) -> Path:
    """Fill the cache of the Hub's own client; return its folder of the revision."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name))


@pytest.mark.parametrize("is_offline", [True, False])
def test_without_internet_an_earlier_fetch_serves(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_offline: bool
) -> None:
    """Its bytes are compared with the hashes of the revision; no other revision is found."""
    from huggingface_hub import constants

    folder = tmp_path / "models"
    commit = hub.resolve_revision(model(), folder).commit
    assert fetch_weights(folder) == WEIGHTS
    name, value = ("HF_HUB_OFFLINE", True) if is_offline else ("ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, name, value)
    for revision in ("main", commit):
        snapshot = hub.resolve_revision(model(revision=revision), folder)
        assert (snapshot.commit, {file.path for file in snapshot.files}) == (commit, {*FILES})
        assert hub.fetch_files(snapshot, snapshot.files, folder)["model.safetensors"].read_bytes() == WEIGHTS
    for other in (model(revision="v2"), model("us/other")):
        with pytest.raises(UserError, match="HF_HUB_OFFLINE is set, and no complete copy" if is_offline else "reach"):
            hub.resolve_revision(other, folder)
    if is_offline:
        (folder / "model.safetensors").write_bytes(bytes(len(WEIGHTS)))
        with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
            hub.fetch_files(snapshot, snapshot.files, folder)


def test_what_the_hubs_own_client_has_cached_is_not_fetched_again(server: HubServer, tmp_path: Path) -> None:
    cached = cache_with_the_hubs_client("us/model")
    sent = server.sent("model.safetensors")
    assert sent == len(WEIGHTS) == (cached / "model.safetensors").stat().st_size
    assert fetch_weights(tmp_path / "models") == WEIGHTS
    assert server.sent("model.safetensors") == sent


def test_without_internet_the_cache_of_the_hubs_client_serves(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged blob is not used: it is named by its hash."""
    from huggingface_hub import constants

    cached = cache_with_the_hubs_client("us/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    snapshot = hub.resolve_revision(model(), NOWHERE)
    assert (snapshot.commit, snapshot.copy) == (cached.name, cached)
    assert hub.fetch_files(snapshot, snapshot.files, tmp_path / "a")["model.safetensors"].read_bytes() == WEIGHTS
    blob = (cached / "model.safetensors").resolve()
    blob.unlink()
    blob.write_bytes(bytes(len(WEIGHTS)))
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        hub.fetch_files(snapshot, snapshot.files, tmp_path / "b")


def test_a_full_disk_is_reported_before_and_during_a_fetch(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
        with pytest.raises(UserError, match=r"has 0\.0 GB free and needs 0\.0"):
            fetch_weights(tmp_path)
    assert server.sent("model.safetensors") == 0

    monkeypatch.setattr(hub, "_receive_part", Mock(side_effect=OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(UserError, match="the disk is full at"):
        fetch_weights(tmp_path)


@pytest.mark.parametrize("path", ["../over.json", "/over.json", "a/../../over.json", "a\\over.json"])
def test_a_file_name_that_leaves_the_folder_is_refused(server: HubServer, tmp_path: Path, path: str) -> None:
    server.add("model", "us/model", {path: b"{}"})
    with pytest.raises(UserError, match="would be outside"):
        fetch_weights(tmp_path / "models")
    assert not (tmp_path / "over.json").exists()
