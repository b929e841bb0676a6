"""The stage `download`: each source's rows come out, the manifest says what was read of how many and from where, and
what the source must hold is asked before any work."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioning.base.hashes import sha256
from captioning.data import hub
from captioning.data.sources import explain_missing
from captioning.images.table import stream_images
from captioning.params.load import Data
from stages import download
from tests.helpers.hub_server import HubServer
from tests.helpers.online import online
from tests.helpers.project_copy import draw_folder

Stage = Callable[..., dict[str, Any]]


def settings(**changed: Any) -> Data:
    usual = {"source": "folder", "path": "raw", "repository": "us/risc", "revision": "main", "declared": None}
    return Data.model_validate(usual | {"images": 60, "image_size": 64, "seed": 1} | changed)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Run the stage where `raw` is RISC's layout with 50 rows; its manifest."""
    draw_folder(tmp_path / "raw", images=50)
    monkeypatch.chdir(tmp_path)

    def run(**changed: Any) -> dict[str, Any]:
        monkeypatch.setattr(download, "load_params", lambda: SimpleNamespace(data=settings(**changed)))
        download.main()
        return json.loads(Path("data/captions/manifest.json").read_text(encoding="utf-8"))

    return run


def images() -> list[Any]:
    return list(stream_images(Path("data/captions/images.parquet")))


def packed() -> Path:
    return Path(shutil.make_archive("RISCM", "zip", "raw")).relative_to(Path.cwd())


def pushed(folder: str, shards: int = 2) -> dict[str, bytes]:
    """The rows of `raw` whose image is there, in the Hub's format; the files by their path."""
    with Path("raw/captions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if Path("raw/resized", row["image"]).is_file()]
    for row in rows:
        path = Path("raw/resized", row.pop("image"))
        row |= {"image": {"bytes": path.read_bytes(), "path": path.name}}
    Path(folder).mkdir()
    for place in range(shards):
        part = rows[place * len(rows) // shards : (place + 1) * len(rows) // shards]
        pq.write_table(pa.Table.from_pylist(part), f"{folder}/train-{place:05d}-of-{shards:05d}.parquet")
    return {f"data/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}


@pytest.mark.parametrize(("wanted", "read", "told"), [(40, 40, "40 of 50 rows drawn (data.images)\n"), (60, 50, "")])
def test_a_part_of_a_folder_is_told(
    stage: Stage, capsys: pytest.CaptureFixture[str], wanted: int, read: int, told: str
) -> None:
    manifest = stage(images=wanted)
    assert (manifest["rows"], manifest["captions"], manifest["rows_read"]) == (50, 250, read)
    assert ("rows drawn" in (errors := capsys.readouterr().err)) is bool(told)
    assert errors.startswith(told)


def test_an_archive_gives_what_its_folder_gives(stage: Stage) -> None:
    stage()
    expected = images()
    path = packed()
    for given in (str(path), "."):
        manifest = stage(source="archive", path=given)
        assert images() == expected and len(expected) == 48
        assert manifest["source"] == {"kind": "archive", "archive": "RISCM.zip", "sha256": sha256(path)}


def test_a_folder_of_shards_stands_in_for_the_hub(stage: Stage) -> None:
    stage()
    expected = images()
    files = pushed("shards")
    manifest = stage(path="shards")
    assert images() == expected
    assert manifest["source"]["sha256"].keys() == {Path(name).name for name in files}


def test_the_hub_gives_what_the_folder_gives_and_its_commit_is_recorded(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Broken off in the second shard, with DVC's output deleted in between: what was fetched is not fetched again."""
    monkeypatch.setattr(hub, "ATTEMPTS", 1)
    stage()
    expected = images()
    files = pushed("shards")
    second = "data/train-00001-of-00002.parquet"
    with HubServer() as server, online(server, monkeypatch, str(tmp_path)):
        commit = server.add("dataset", "us/risc", files | {"README.md": b"text"})
        server.cuts[second] = len(files[second]) // 2
        with pytest.raises(SystemExit):
            stage(source="hub")
        assert "error: images us/risc cannot be had: " in capsys.readouterr().err
        shutil.rmtree("data/captions")
        server.cuts.clear()
        manifest = stage(source="hub")
        assert server.sent("train-00000-of-00002.parquet") == len(files["data/train-00000-of-00002.parquet"])
        assert server.sent("README.md") == 0
    assert images() == expected
    shards = {path.name: sha256(path) for path in Path("shards").iterdir()}
    assert manifest["source"] == {
        "kind": "hub", "sha256": {f"data/{name}": digest for name, digest in shards.items()},
        "repository": "us/risc", "revision": "main", "commit": commit,
    }  # fmt: skip


def test_what_a_source_must_hold_is_asked_before_any_work(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the whole source, whatever is drawn from it."""
    right = {"images": 50, "captions": 250, "sha256": ""}
    assert stage(declared=right, images=40)["declared"] == right
    shutil.rmtree("data")
    with pytest.raises(SystemExit):
        stage(declared=right | {"images": 44521, "captions": 222605})
    counts = "50 images where data.declared says 44521 and 250 captions where data.declared says 222605"
    assert (
        f"error: the folder holds {counts}; mend the folder, or set data.declared to null\n" in capsys.readouterr().err
    )
    path = packed()
    stage(source="archive", path=str(path), declared=right | {"sha256": sha256(path)})
    shutil.rmtree("data")
    with pytest.raises(SystemExit):
        stage(source="archive", path=str(path), declared=right | {"sha256": "0" * 64})
    assert f"holds {sha256(path)} sha256 where data.declared says {'0' * 64}; mend" in capsys.readouterr().err
    assert not Path("data").exists()


def test_what_is_missing_is_told_before_any_work(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage `check` asks; of the Hub with one request, two where the repository is gated."""

    def told(source: str, path: str = "raw", revision: str = "main") -> str | None:
        return explain_missing(source, Path(path), "us/risc", revision)

    assert told("overhead") is told("folder") is None
    assert "neither none/captions.csv nor Parquet files are there" in str(told("folder", "none"))
    assert "raw/RISCM.zip is not there; put RISCM.zip there" in str(told("archive"))
    Path("cut.zip").write_bytes(packed().read_bytes()[:-30])
    assert "cut.zip is no zip archive, or cut short" in str(told("archive", "cut.zip"))
    assert told("archive", "RISCM.zip") is told("archive", ".") is None
    with HubServer() as server, online(server, monkeypatch, str(tmp_path)):
        server.add("dataset", "us/risc", {"data.csv": b""})
        server.add("dataset", "us/risc", pushed("shards"), "refs/convert/parquet")
        before = len(server.served)
        assert told("hub", revision="refs/convert/parquet") is None
        assert [one.status for one in server.served[before:] if "us/risc" in one.path] == [200]
        said = str(told("hub"))
        assert "images us/risc cannot be had: revision 'main' holds no Parquet file; set data.revision to refs/" in said
        assert said.endswith(
            "or set data.source to `archive` and data.path to RISCM.zip, or to `folder` and its folder"
        )
        assert "it has no revision 'none'" in str(told("hub", revision="none"))
        server.repositories["dataset", "us/risc"].gated = True
        assert f"accept its licence on {server.url}/datasets/us/risc" in str(told("hub"))
