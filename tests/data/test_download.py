"""The stage `download` writes each source's rows and their origin, and checks the source before any work."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rasterio.io import MemoryFile

from captioning.base.hashes import sha256
from captioning.data import hub
from captioning.data.sources import explain_missing
from captioning.images.table import stream_images
from captioning.params.sections import Data
from stages import download
from tests.helpers.hub_server import HubServer
from tests.helpers.online import online
from tests.helpers.project_copy import draw_folder

Stage = Callable[..., dict[str, Any]]
DEFAULTS = dict(source="folder", path="raw", repository="us/risc", revision="main", columns=None, declared=None)
DEFAULTS |= {"set_aside": "refuse", "bands": None}


def make_data(**changes: Any) -> Data:
    return Data.model_validate(DEFAULTS | {"images": 60, "image_size": 64, "seed": 1} | changes)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Run the stage beside `raw`, a folder in RISC's layout with 50 rows; return its manifest."""
    draw_folder(tmp_path / "raw", images=50)
    monkeypatch.chdir(tmp_path)

    def run(**changes: Any) -> dict[str, Any]:
        data = make_data(**changes)
        monkeypatch.setattr(download, "load_params", lambda: SimpleNamespace(data=data))
        download.main()
        return json.loads(Path("data/captions/manifest.json").read_text(encoding="utf-8"))

    return run


def read_images() -> list[Any]:
    return list(stream_images(Path("data/captions/images.parquet")))


def pack_archive() -> Path:
    return Path(shutil.make_archive("RISCM", "zip", "raw")).relative_to(Path.cwd())


def write_shards(folder: str, shards: int = 2) -> dict[str, bytes]:
    """Write the rows of `raw` that have an image in the Hub's format; return the files by their path."""
    with Path("raw/captions.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if Path("raw/resized", row["image"]).is_file()]
    for row in rows:
        path = Path("raw/resized", row.pop("image"))
        row |= {"image": {"bytes": path.read_bytes(), "path": path.name}}
    Path(folder).mkdir()
    for index in range(shards):
        part = rows[index * len(rows) // shards : (index + 1) * len(rows) // shards]
        pq.write_table(pa.Table.from_pylist(part), f"{folder}/train-{index:05d}-of-{shards:05d}.parquet")
    return {f"data/{path.name}": path.read_bytes() for path in Path(folder).iterdir()}


def test_a_sample_of_a_folder_is_reported(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = stage(images=40)
    assert (manifest["rows"], manifest["captions"], manifest["rows_read"]) == (50, 250, 40)
    assert "40 of 50 rows" in capsys.readouterr().err


def test_set_aside_rows_are_counted_by_reason_and_few_of_them_are_accepted(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 50 rows two have no usable image; the third makes them more than 5 %."""
    reasons = {"a caption is nearly empty": 1, "no such file": 1, "unreadable image": 1}
    assert stage()["set_aside_by_reason"] == reasons
    line = "3 set aside: 1 × a caption is nearly empty; 1 × no such file; 1 × unreadable image\n"
    assert line in capsys.readouterr().err
    shutil.rmtree("data")
    Path("raw/resized/RSICD_4.jpg").write_bytes(b"")
    with pytest.raises(SystemExit):
        stage()
    assert "error: raw: 3 of 50 rows cannot be used, more than 5%; 4 set aside: 2 × unreadable image; " in (
        message := capsys.readouterr().err
    )
    assert "set data.set_aside to allow" in message and not Path("data/captions").exists()
    assert "RSICD_4.jpg,6,unreadable image" in Path(".cache/set_aside.csv").read_text(encoding="utf-8")
    assert stage(set_aside="allow")["set_aside"] == 4


def test_captions_and_unnamed_images_are_also_limited(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    table = Path("raw/captions.csv")
    lines = table.read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(lines[:-6]), encoding="utf-8")
    with pytest.raises(SystemExit):
        stage()
    assert "6 of 50 images, which no row names, cannot be used" in capsys.readouterr().err
    table.write_text("\n".join(line.replace("field", "").replace(" is seen in way 0", "") for line in lines))
    with pytest.raises(SystemExit):
        stage()
    assert "captions cannot be used, more than 5%" in capsys.readouterr().err


def test_a_source_without_a_usable_image_is_always_refused(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("raw/resized")
    with pytest.raises(SystemExit):
        stage(set_aside="allow")
    message = capsys.readouterr().err
    assert (
        "error: raw: no usable image; 50 set aside: 50 × no such file; for example 'RSICD_0.jpg': no such file; "
        in (message)
    )


def test_the_example_is_a_lost_row_and_not_the_image_that_it_leaves(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Path("raw/captions.csv")
    table.write_text(table.read_text(encoding="utf-8").replace(",RSICD_", ",C:\\pictures\\RSICD_"), encoding="utf-8")
    with pytest.raises(SystemExit):
        stage()
    assert "for example 'C:\\\\pictures\\\\RSICD_0.jpg': its name is absolute" in capsys.readouterr().err


def test_no_spreadsheet_executes_the_list_of_what_is_set_aside(stage: Stage) -> None:
    table = Path("raw/captions.csv")
    header, first, *_ = table.read_text(encoding="utf-8").splitlines()
    source, split, image, caption, *captions = first.split(",")
    rows = [[source, split, image, "\x1b", *captions], [source, split, "=cmd()", caption, *captions]]
    table.write_text("\n".join([header, *map(",".join, rows)]), encoding="utf-8")
    stage(set_aside="allow")
    with Path("data/captions/set_aside.csv").open(encoding="utf-8", newline="") as file:
        lines = [row for row in csv.reader(file) if row[1] != "0"]
    expected = [[image, "2", "caption_1 is nearly empty: ''"], ["'=cmd()", "3", "no such file"]]
    assert lines == [["image", "line", "reason"], *expected]


def test_bands_of_tiffs_are_those_of_the_parameters(stage: Stage) -> None:
    """An image of a folder becomes a TIFF with blue, green and red bands, beside one of near infrared."""
    stage()
    before = {image.id: image.image for image in read_images()}
    (path, *_) = (file for file in sorted(Path("raw/resized").iterdir()) if file.stem in before)
    with Image.open(path) as image:
        colours = np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    profile = {"width": colours.shape[2], "height": colours.shape[1], "count": 4, "dtype": "uint8"}
    with MemoryFile() as memory:
        with memory.open(driver="GTiff", photometric="minisblack", **profile) as dataset:
            dataset.write(np.concatenate([colours[::-1], colours[:1] // 2 + 9]))
        path.write_bytes(memory.read())  # under its name, as people have it
    manifest = stage(bands=[3, 2, 1])
    (changed,) = [image for image in read_images() if image.id == path.stem]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(changed.image))), np.moveaxis(colours, 0, -1))
    assert manifest["cleaning_rules_fired"]["image converted to RGB PNG: bands …, …, … of …"] == 1


def test_an_archive_and_a_folder_of_shards_give_the_images_of_the_folder(stage: Stage) -> None:
    stage()
    images = read_images()
    archive = pack_archive()
    for path in (str(archive), "."):
        manifest = stage(source="archive", path=path)
        assert read_images() == images and len(images) == 48
        assert manifest["source"] == {"kind": "archive", "archive": "RISCM.zip", "sha256": sha256(archive)}
    files = write_shards("shards")
    manifest = stage(path="shards")
    assert read_images() == images
    assert manifest["source"]["sha256"].keys() == {Path(name).name for name in files}


def test_the_hub_gives_the_images_of_the_folder_and_the_manifest_records_its_commit(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first run breaks off in the second shard, then DVC deletes the output: no byte is fetched twice."""
    monkeypatch.setattr(hub, "ATTEMPTS", 1)
    stage()
    images = read_images()
    files = write_shards("shards")
    first, second = "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"
    with HubServer() as server, online(server, monkeypatch, str(tmp_path)):
        commit = server.add("dataset", "us/risc", files | {"README.md": b"text"})
        server.cuts[second] = len(files[second]) // 2
        with pytest.raises(SystemExit):
            stage(source="hub")
        assert "error: cannot fetch images us/risc: " in capsys.readouterr().err
        shutil.rmtree("data/captions")
        server.cuts.clear()
        manifest = stage(source="hub")
        assert server.sent(Path(first).name) == len(files[first])
        assert server.sent("README.md") == 0
    assert read_images() == images
    hashes = {f"data/{path.name}": sha256(path) for path in Path("shards").iterdir()}
    origin = {"repository": "us/risc", "revision": "main", "commit": commit}
    assert manifest["source"] == {"kind": "hub", "sha256": hashes, **origin}


def test_a_source_that_is_not_as_declared_is_refused_before_any_work(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole source counts, also if only a sample is read."""
    declared = {"images": 50, "captions": 250, "sha256": ""}
    assert stage(declared=declared, images=40)["declared"] == declared
    archive = pack_archive()
    stage(source="archive", path=str(archive), declared=declared | {"sha256": sha256(archive)})
    shutil.rmtree("data")
    with pytest.raises(SystemExit):
        stage(declared=declared | {"images": 44521, "captions": 222605})
    counts = "50 images where data.declared says 44521 and 250 captions where data.declared says 222605"
    assert f"error: the folder holds {counts}; " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        stage(source="archive", path=str(archive), declared=declared | {"sha256": "0" * 64})
    assert f"holds {sha256(archive)} sha256 where data.declared says {'0' * 64}; " in capsys.readouterr().err
    assert not Path("data").exists()


def test_a_missing_source_is_explained(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub gets one request, and one for the columns."""

    def explain(source: str, path: str = "raw", revision: str = "main") -> str | None:
        return explain_missing(make_data(source=source, path=path, revision=revision))

    assert explain("overhead") is explain("folder") is None
    assert "none: no such folder; put your images there" in str(explain("folder", "none"))
    assert "raw/RISCM.zip does not exist" in str(explain("archive"))
    Path("cut.zip").write_bytes(pack_archive().read_bytes()[:-30])
    assert "cut.zip is not a zip archive, or incomplete" in str(explain("archive", "cut.zip"))
    assert explain("archive", "RISCM.zip") is explain("archive", ".") is None
    with HubServer() as server, online(server, monkeypatch, str(tmp_path)):
        server.add("dataset", "us/risc", {"data.csv": b""})
        server.add("dataset", "us/risc", write_shards("shards"), "refs/convert/parquet")
        assert explain("hub", revision="refs/convert/parquet") is None
        assert [request.status for request in server.served if "us/risc" in request.path] == [200, 302]
        assert "revision 'main' holds no Parquet file; set data.revision to refs/convert/parquet" in str(explain("hub"))
