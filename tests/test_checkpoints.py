"""A checkpoint's files are those named; fetching brings weights and JSON, never pickles or code, and fails in one
line."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from captioning.checkpoints import available, fetch
from captioning.hashes import file_hashes, verify
from captioning.runlog import UserError

FILES = {"config.json": b"{}", "model.safetensors": b"weights", "tokenizer.json": b"[]"}


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
    verify(folder, expected)


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
        verify(folder, files)


def test_no_folder_at_all_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json"):
        verify(tmp_path / "absent", file_hashes(folder_of(tmp_path / "mix", FILES)))


def test_a_local_folder_gives_weights_and_json_alone(tmp_path: Path) -> None:
    others = {"pytorch_model.bin": b"pickle", "modeling.py": b"code", "model.pt": b"pickle", "README.md": b"text"}
    source = folder_of(tmp_path / "source", FILES | {"tokenizer.model": b"pieces"} | others)
    fetch("folder", str(source), "main", tmp_path / "new" / "mix")
    assert file_hashes(tmp_path / "new" / "mix") == {
        name: digest for name, digest in file_hashes(source).items() if name not in others
    }


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_local_folder_without_a_checkpoint_is_refused(tmp_path: Path, missing: str) -> None:
    source = folder_of(tmp_path / "source", {name: data for name, data in FILES.items() if name != missing})
    with pytest.raises(UserError, match="no checkpoint folder"):
        fetch("folder", str(source), "main", tmp_path / "mix")
    assert "no checkpoint folder" in str(available("folder", str(source), "main"))


def test_an_available_folder_is_told_so(tmp_path: Path) -> None:
    assert available("folder", str(folder_of(tmp_path / "source", FILES)), "main") is None


def test_offline_is_one_line_with_the_remedy_and_no_token(tmp_path: Path) -> None:
    """In a process of its own: the Hub's client reads its environment once, at import."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from captioning.checkpoints import available, fetch\n"
        "from captioning.runlog import UserError\n"
        "try:\n"
        "    fetch('hub', 'google/paligemma-3b-pt-224', 'main', Path(sys.argv[1]))\n"
        "except UserError as error:\n"
        "    print(error)\n"
        "print(available('hub', 'google/paligemma-3b-pt-224', 'main'))\n"
    )
    secret = "hf_" + "x" * 30
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_TOKEN": secret, "HF_HOME": str(tmp_path / "home"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "mix")],
        cwd=Path(__file__).parent.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    fetched, checked = done.stdout.splitlines()
    for line in (fetched, checked):
        assert line.startswith("weights google/paligemma-3b-pt-224 cannot be had (")
        assert "HF_TOKEN" in line
        assert "checkpoints.origin" in line
    assert secret not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
