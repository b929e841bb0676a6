"""A checkpoint's files are those named; fetching brings weights and JSON, never pickles or code, and fails in one
line."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from captioning.base.errors import UserError
from captioning.base.hashes import file_hashes, require_hashes
from captioning.checkpoints.fetch import explain_unavailable, fetch_checkpoint
from captioning.data import hub
from tests.helpers.hub_server import Answer, HubServer, Request
from tests.helpers.online import quick_server

FILES = {
    "config.json": b'{"model_type": "paligemma"}',
    "model.safetensors": (2).to_bytes(8, "little") + b"{}",
    "tokenizer.json": b"{}",
}


def folder_of(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir(exist_ok=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


def test_hashes_are_sha256_by_name_in_order(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mix", dict(reversed(FILES.items())))
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    assert file_hashes(folder) == expected
    assert list(file_hashes(folder)) == sorted(FILES)
    require_hashes(folder, expected)


@pytest.mark.parametrize(
    ("changed", "removed", "named"),
    [
        ({"model.safetensors": b"other"}, [], ["model.safetensors"]),
        ({"more.json": b"{}"}, [], ["more.json"]),
        ({}, ["config.json"], ["config.json"]),
        ({"model.safetensors": b""}, ["tokenizer.json"], ["model.safetensors", "tokenizer.json"]),
    ],
)
def test_what_moved_is_named(tmp_path: Path, changed: dict[str, bytes], removed: list[str], named: list[str]) -> None:
    folder = folder_of(tmp_path / "mix", FILES)
    files = file_hashes(folder)
    folder_of(folder, changed)
    for name in removed:
        (folder / name).unlink()
    with pytest.raises(UserError, match=rf"mix: {', '.join(named)} differ from the recipe"):
        require_hashes(folder, files)


def test_no_folder_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        require_hashes(tmp_path / "absent", file_hashes(folder_of(tmp_path / "mix", FILES)))


def test_a_local_folder_gives_weights_and_json_alone(tmp_path: Path) -> None:
    others = {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "model.pt": b"pickle", "README.md": b"text"}
    source = folder_of(tmp_path / "source", FILES | {"tokenizer.model": b"pieces"} | others)
    fetch_checkpoint("folder", str(source), "main", tmp_path / "new" / "mix", tmp_path / "downloads")
    assert file_hashes(tmp_path / "new" / "mix") == {
        name: digest for name, digest in file_hashes(source).items() if name not in others
    }


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_local_folder_without_a_checkpoint_is_refused(tmp_path: Path, missing: str) -> None:
    source = folder_of(tmp_path / "source", {name: data for name, data in FILES.items() if name != missing})
    with pytest.raises(UserError, match="no checkpoint folder"):
        fetch_checkpoint("folder", str(source), "main", tmp_path / "mix", tmp_path / "downloads")
    assert "no checkpoint folder" in str(explain_unavailable("folder", str(source), "main"))


def test_an_available_folder_is_told_so(tmp_path: Path) -> None:
    assert explain_unavailable("folder", str(folder_of(tmp_path / "source", FILES)), "main") is None


REMOTE = {
    "config.json": b"{}",
    "preprocessor_config.json": b"{}",
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}
    ).encode(),
    "one.safetensors": os.urandom(300_000),
    "two.safetensors": os.urandom(600_000),
    "tokenizer.model": b"pieces",
}
STALE = {"three.safetensors": b"of another precision"}  # named by no index
OTHERS = STALE | {
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    "README.md": b"text",
    "onnx/model.safetensors": b"?",
}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with quick_server(monkeypatch, str(tmp_path)) as server:
        yield server


def test_the_hub_gives_weights_and_json_alone_and_the_commit_is_kept(server: HubServer, tmp_path: Path) -> None:
    commit = server.add("model", "us/mix", REMOTE | OTHERS, "bfloat16")
    assert explain_unavailable("hub", "us/mix", "bfloat16") is None
    fetch_checkpoint("hub", "us/mix", "bfloat16", tmp_path / "mix", tmp_path / "downloads")
    expected = {name: hashlib.sha256(data).hexdigest() for name, data in REMOTE.items()}
    assert file_hashes(tmp_path / "mix") == expected
    require_hashes(tmp_path / "mix", expected)
    told = json.loads((tmp_path / "mix/source.json").read_text(encoding="utf-8"))
    assert told == {"repository": "us/mix", "revision": "bfloat16", "commit": commit}
    for name in REMOTE:  # kept until DVC has recorded the checkpoint, in no room of its own
        assert (tmp_path / "downloads" / name).samefile(tmp_path / "mix" / name)


def test_a_fetch_goes_on_though_its_output_was_deleted(server: HubServer, tmp_path: Path) -> None:
    """As DVC deletes it before each run."""
    server.add("model", "us/mix", REMOTE)
    server.cuts["two.safetensors"] = 500_000
    with pytest.raises(UserError, match="fetched bytes are kept"):
        fetch_checkpoint("hub", "us/mix", "main", tmp_path / "mix", tmp_path / "downloads")
    shutil.rmtree(tmp_path / "mix")
    server.cuts.clear()
    first = server.sent("one.safetensors"), server.sent("two.safetensors")
    fetch_checkpoint("hub", "us/mix", "main", tmp_path / "mix", tmp_path / "downloads")
    assert server.sent("one.safetensors") == first[0] == 300_000
    assert 100_000 <= server.sent("two.safetensors") - first[1] < 100_000 + hub.CHUNK
    assert file_hashes(tmp_path / "mix") == {name: hashlib.sha256(data).hexdigest() for name, data in REMOTE.items()}


@pytest.mark.parametrize(
    ("changed", "removed", "said"),
    [
        ({}, "two.safetensors", "its model.safetensors.index.json names two.safetensors, which the revision does not"),
        ({"model.safetensors.index.json": b"[]"}, "README.md", "model.safetensors.index.json is no index of weights"),
        ({}, "config.json", "revision 'main' holds no config.json; set checkpoints"),
        ({}, "tokenizer.model", "holds no tokenizer.json or tokenizer.model; set checkpoints"),
        ({}, "preprocessor_config.json", "holds no preprocessor_config.json or processor_config.json; set checkpoints"),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_refused_before_its_weights_are_fetched(
    server: HubServer, tmp_path: Path, changed: dict[str, bytes], removed: str, said: str
) -> None:
    files = {name: data for name, data in (REMOTE | OTHERS | changed).items() if name != removed}
    server.add("model", "us/mix", files)
    with pytest.raises(UserError, match=said):
        fetch_checkpoint("hub", "us/mix", "main", tmp_path / "mix", tmp_path / "downloads")
    assert server.sent("one.safetensors") == 0


def test_a_revision_without_safetensors_is_told_before_any_work(server: HubServer) -> None:
    server.add("model", "us/mix", {"config.json": b"{}", "model.npz": b""})
    assert "revision 'main' holds no *.safetensors, no tokenizer.json or tokenizer.model, no preprocessor" in str(
        explain_unavailable("hub", "us/mix", "main")
    )


def test_a_gated_checkpoint_is_told_before_any_work(server: HubServer) -> None:
    server.add("model", "us/mix", REMOTE, gated=True, readers={"hf_reader"})
    told = str(explain_unavailable("hub", "us/mix", "main"))
    assert told.startswith(
        "cannot fetch weights us/mix: it is gated; accept its licence on http"
    )
    assert told.endswith("; or set checkpoints.origin to `folder` and each repository to a local folder")


PROGRAM = (
    "import sys\n"
    "from pathlib import Path\n"
    "from captioning.checkpoints.fetch import explain_unavailable, fetch_checkpoint\n"
    "from captioning.base.errors import UserError\n"
    "folder, repository = Path(sys.argv[1]), sys.argv[2]\n"
    "try:\n"
    "    fetch_checkpoint('hub', repository, 'main', folder / 'mix', folder / 'downloads')\n"
    "except UserError as error:\n"
    "    print(error)\n"
    "print(explain_unavailable('hub', repository, 'main'))\n"
)
SECRET = "hf_" + "x" * 30


def in_a_process(folder: Path, repository: str, **environment: str) -> "subprocess.Popen[str]":
    """The Hub's client reads its environment once, at import."""
    own = {"HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "home"), "HF_TOKEN": SECRET, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), repository],
        cwd=Path(__file__).parents[2],
        env=os.environ | own | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_offline_is_one_line_with_the_remedy_and_no_token(tmp_path: Path) -> None:
    out, err = in_a_process(tmp_path, "google/paligemma-3b-pt-224", HF_HUB_OFFLINE="1").communicate()
    fetched, checked = out.splitlines()
    for line in (fetched, checked):
        assert line.startswith("cannot fetch weights google/paligemma-3b-pt-224: HF_HUB_OFFLINE is set; unset it")
        assert "checkpoints.origin" in line
    assert SECRET not in out + err
    assert "Traceback" not in err


def test_a_token_is_used_and_told_nowhere(tmp_path: Path) -> None:
    """Neither where it opens the repository, nor where it is refused, nor where it is no token at all."""
    with HubServer() as server:
        server.add("model", "us/mix", REMOTE, gated=True, readers={SECRET})
        for token, said in (
            (SECRET, "None"),
            ("hf_other" + SECRET, "the Hub refuses the token"),
            (f"{SECRET}é", "holds characters that no token has"),
        ):
            out, err = in_a_process(tmp_path, "us/mix", HF_ENDPOINT=server.url, HF_TOKEN=token).communicate()
            assert said in out.splitlines()[-1]
            assert SECRET not in out + err and "Traceback" not in err
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert left and not any(SECRET.encode() in path.read_bytes() for path in left)


def test_a_killed_process_leaves_what_the_next_goes_on_from(tmp_path: Path) -> None:
    """Killed when it asks for the rest of a file whose connection broke."""

    class Killing(HubServer):
        process: "subprocess.Popen[str] | None" = None

        def answer(self, request: Request) -> Answer:
            if self.process and self.cuts and "range" in request.headers:
                self.process.kill()
            return super().answer(request)

    with Killing() as server:
        server.add("model", "us/mix", REMOTE)
        server.known_tokens.add(SECRET)
        server.cuts["two.safetensors"] = 500_000
        server.process = in_a_process(tmp_path, "us/mix", HF_ENDPOINT=server.url)
        server.process.communicate()
        assert server.process.returncode == -signal.SIGKILL and not (tmp_path / "mix/two.safetensors").exists()
        server.cuts.clear()
        first = server.sent("two.safetensors")
        out, _ = in_a_process(tmp_path, "us/mix", HF_ENDPOINT=server.url).communicate()
        assert out == "None\n"
        assert server.sent("two.safetensors") - first < 100_000 + 2 * hub.CHUNK
    assert file_hashes(tmp_path / "mix") == {name: hashlib.sha256(data).hexdigest() for name, data in REMOTE.items()}
