"""Fetching brings weights and JSON, never pickles or code; incomplete repositories are refused before the download."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from captioning.base.errors import UserError
from captioning.base.hashes import file_hashes, require_hashes
from captioning.checkpoints.fetch import explain_unavailable, fetch_checkpoint
from captioning.data import hub
from captioning.runtime.paths import exclusive_folder, remove_downloads
from tests.helpers.hub_server import HubServer
from tests.helpers.online import quick_server

Files = dict[str, bytes]
FILES = {
    "config.json": b'{"model_type": "paligemma"}',
    "model.safetensors": (2).to_bytes(8, "little") + b"{}",
    "tokenizer.json": b"{}",
}
INDEX = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
REPOSITORY = {
    "config.json": b"{}",
    "preprocessor_config.json": b"{}",
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "one.safetensors": os.urandom(300_000),
    "two.safetensors": os.urandom(600_000),
    "tokenizer.model": b"pieces",
}
CODE = {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "model.pt": b"pickle", "README.md": b"text"}
OTHERS = CODE | {"three.safetensors": b"not in the index", "onnx/model.safetensors": b"?"}


def hash_all(files: Files) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def write_folder(path: Path, files: Files) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def test_hashes_are_sha256_in_order_of_names(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mix", dict(reversed(FILES.items())))
    assert list(file_hashes(folder).items()) == sorted(hash_all(FILES).items())
    require_hashes(folder, hash_all(FILES))


@pytest.mark.parametrize(
    ("changed", "removed", "names"),
    [
        ({"model.safetensors": b"other"}, [], "model.safetensors"),
        ({"more.json": b"{}"}, [], "more.json"),
        ({"model.safetensors": b""}, ["tokenizer.json"], "model.safetensors, tokenizer.json"),
        ({}, list(FILES), "config.json, model.safetensors, tokenizer.json"),
    ],
)
def test_changed_files_are_named(tmp_path: Path, changed: Files, removed: list[str], names: str) -> None:
    folder = write_folder(tmp_path / "mix", FILES | changed)
    for name in removed:
        (folder / name).unlink()
    with pytest.raises(UserError, match=rf"mix: {names} differ from the recipe"):
        require_hashes(folder, hash_all(FILES))


def test_local_folder_gives_weights_and_json_only(tmp_path: Path) -> None:
    weights = FILES | {"tokenizer.model": b"pieces"}
    source = write_folder(tmp_path / "source", weights | CODE)
    assert explain_unavailable("folder", str(source), "main", Path("downloads")) is None
    fetch_checkpoint("folder", str(source), "main", tmp_path / "new" / "mix", tmp_path / "downloads")
    assert file_hashes(tmp_path / "new" / "mix") == hash_all(weights)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_local_folder_without_checkpoint_is_refused(tmp_path: Path, missing: str) -> None:
    source = write_folder(tmp_path / "source", {name: data for name, data in FILES.items() if name != missing})
    with pytest.raises(UserError, match="correct checkpoints"):
        fetch_checkpoint("folder", str(source), "main", tmp_path / "mix", tmp_path / "downloads")
    assert str(source) in str(explain_unavailable("folder", str(source), "main", Path("downloads")))


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with quick_server(monkeypatch, str(tmp_path)) as server:
        yield server


def fetch_from_hub(folder: Path, revision: str = "main") -> None:
    fetch_checkpoint("hub", "us/mix", revision, folder / "mix", folder / "downloads")


def test_hub_gives_weights_and_json_only_and_their_commit(server: HubServer, tmp_path: Path) -> None:
    commit = server.add("model", "us/mix", REPOSITORY | OTHERS, "bfloat16")
    assert explain_unavailable("hub", "us/mix", "bfloat16", Path("downloads")) is None
    fetch_from_hub(tmp_path, "bfloat16")
    require_hashes(tmp_path / "mix", hash_all(REPOSITORY))
    source = json.loads((tmp_path / "mix/source.json").read_text(encoding="utf-8"))
    assert source == {"repository": "us/mix", "revision": "bfloat16", "commit": commit}
    for name in REPOSITORY:  # stays until DVC has recorded the checkpoint, without taking disk space
        assert (tmp_path / "downloads" / name).samefile(tmp_path / "mix" / name)


def test_hub_and_folder_give_the_same_files(server: HubServer, tmp_path: Path) -> None:
    """So the same weights from another origin retrain nothing."""
    weights = (2).to_bytes(8, "little") + b"{}"
    files = REPOSITORY | {"config.json": FILES["config.json"], "one.safetensors": weights, "two.safetensors": weights}
    everything = files | OTHERS | {"three.safetensors": weights}
    server.add("model", "us/mix", everything)
    fetch_from_hub(tmp_path)
    source = write_folder(tmp_path / "source", {name: data for name, data in everything.items() if "/" not in name})
    fetch_checkpoint("folder", str(source), "main", tmp_path / "folder", tmp_path / "downloads")
    assert file_hashes(tmp_path / "folder") == file_hashes(tmp_path / "mix") == hash_all(files)


def test_without_internet_a_fetched_checkpoint_can_be_had_again(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is nowhere on this machine is only noted: DVC may have it, otherwise its stage refuses."""
    from huggingface_hub import constants

    server.add("model", "us/mix", REPOSITORY | OTHERS)
    fetch_from_hub(tmp_path)
    shutil.rmtree(tmp_path / "mix")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert explain_unavailable("hub", "us/mix", "main", tmp_path / "downloads") is None
    assert capsys.readouterr().err == ""
    fetch_from_hub(tmp_path)
    assert file_hashes(tmp_path / "mix") == hash_all(REPOSITORY)
    assert explain_unavailable("hub", "us/other", "main", tmp_path / "downloads") is None
    note = "note: only DVC may have it: cannot fetch weights us/other: HF_HUB_OFFLINE is set, and no complete copy"
    assert capsys.readouterr().err.startswith(note)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        fetch_checkpoint("hub", "us/other", "main", tmp_path / "other", tmp_path / "no downloads")


def test_downloads_that_a_run_fetches_are_not_removed(server: HubServer, tmp_path: Path) -> None:
    for name in ("base", "mix"):
        (tmp_path / name).mkdir()
    with exclusive_folder(tmp_path / "mix"):
        remove_downloads(tmp_path)
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["mix"]
    remove_downloads(tmp_path)
    assert not (tmp_path / "mix").exists()


def test_download_continues_after_dvc_deleted_the_output(server: HubServer, tmp_path: Path) -> None:
    server.add("model", "us/mix", REPOSITORY)
    server.cuts["two.safetensors"] = 500_000
    with pytest.raises(UserError, match="fetched bytes are kept"):
        fetch_from_hub(tmp_path)
    shutil.rmtree(tmp_path / "mix")
    server.cuts.clear()
    sent = server.sent("two.safetensors")
    fetch_from_hub(tmp_path)
    assert server.sent("one.safetensors") == 300_000
    assert 100_000 <= server.sent("two.safetensors") - sent < 100_000 + hub.CHUNK
    assert file_hashes(tmp_path / "mix") == hash_all(REPOSITORY)


@pytest.mark.parametrize(
    ("changed", "removed", "message"),
    [
        ({}, "two.safetensors", "its model.safetensors.index.json names two.safetensors, which the revision does not"),
        ({"model.safetensors.index.json": b"[]"}, "README.md", "model.safetensors.index.json: .* is not a map"),
        ({}, "config.json", "revision 'main' holds no config.json; set checkpoints"),
        ({}, "tokenizer.model", "holds no tokenizer.json or tokenizer.model; set checkpoints"),
        ({}, "preprocessor_config.json", "holds no preprocessor_config.json or processor_config.json; set checkpoints"),
    ],
)
def test_incomplete_repository_is_refused_before_its_weights_are_fetched(
    server: HubServer, tmp_path: Path, changed: Files, removed: str, message: str
) -> None:
    files = REPOSITORY | OTHERS | changed
    server.add("model", "us/mix", {name: data for name, data in files.items() if name != removed})
    with pytest.raises(UserError, match=message):
        fetch_from_hub(tmp_path)
    assert server.sent("one.safetensors") == 0


def test_unusable_repository_is_reported_before_any_work(server: HubServer) -> None:
    server.add("model", "us/old", {"config.json": b"{}", "model.npz": b""})
    server.add("model", "us/gated", REPOSITORY, gated=True, readers={"hf_reader"})
    assert "revision 'main' holds no *.safetensors, no " in str(
        explain_unavailable("hub", "us/old", "main", Path("downloads"))
    )
    assert "it is gated; accept its licence" in str(explain_unavailable("hub", "us/gated", "main", Path("downloads")))


PROGRAM = """
import sys
from pathlib import Path
from captioning.base.errors import UserError
from captioning.checkpoints.fetch import explain_unavailable, fetch_checkpoint
folder = Path(sys.argv[1])
try:
    fetch_checkpoint("hub", "us/mix", "main", folder / "mix", folder / "downloads")
except UserError as error:
    print(error)
print(explain_unavailable("hub", "us/mix", "main", Path("downloads")))
"""
SECRET = "hf_" + "x" * 30


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (SECRET, "None"),
        ("hf_other" + SECRET, "the Hub refuses the token"),
        (f"{SECRET}é", "holds characters that no token has"),
    ],
)
def test_token_is_never_printed_or_written(tmp_path: Path, token: str, message: str) -> None:
    """In another process, because the Hub's client reads its environment once."""
    with HubServer() as server:
        server.add("model", "us/mix", REPOSITORY, gated=True, readers={SECRET})
        login = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": server.url, "HF_TOKEN": token}
        command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
        result = subprocess.run(
            command, cwd=Path(__file__).parents[2], env=os.environ | login, capture_output=True, text=True
        )
    assert message in result.stdout.splitlines()[-1]
    assert SECRET not in result.stdout + result.stderr and "Traceback" not in result.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(SECRET.encode() in path.read_bytes() for path in files)
