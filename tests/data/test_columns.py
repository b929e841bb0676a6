"""Declared columns are read, of a folder and of the Hub; wrong ones are refused before a shard is fetched."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioning.base.errors import UserError
from captioning.data.sources import explain_missing, open_source
from captioning.params.sections import Data
from tests.data.readers.test_shards import encode_image
from tests.helpers.hub_server import HubServer
from tests.helpers.online import quick_server

SHARED = Path(__file__).parents[3] / "shared/cases/hub_rsicd"
USUAL = {"image": "image", "captions": [f"caption_{number}" for number in range(1, 6)]}
DECLARED = {"image": "picture", "captions": "raw", "split": "fold", "source": "collection"}
DEFAULTS = dict(source="hub", path="raw", repository="us/rsicd", revision="main", columns=None, declared=None)
DEFAULTS |= {"set_aside": "refuse", "images": 40, "image_size": 32, "seed": 1, "bands": None}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.chdir(tmp_path)
    with quick_server(monkeypatch, str(tmp_path)) as server:
        yield server


def make_data(**changes: Any) -> Data:
    return Data.model_validate(DEFAULTS | changes)


def write_shard(path: Path, **columns: list[Any]) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, compression="none")
    return path.read_bytes()


def own_shard(path: Path, fold: str, padding: int = 0) -> bytes:
    """Write three rows whose columns have no usual name; `padding` more bytes are in a column that is not read."""
    return write_shard(
        path,
        picture=[{"bytes": encode_image(shade), "path": f"{fold}_{shade}.jpg"} for shade in range(3)],
        raw=[["a port .", None, "two boats ."], ["a field .", "", "some trees ."], ["a road ."]],
        fold=[fold.upper()] * 3,
        collection=["A", "B", "A"],
        image=[os.urandom(padding) for _ in range(3)],
    )


def test_the_hub_and_a_folder_are_read_by_their_declared_columns(server: HubServer, tmp_path: Path) -> None:
    files = {f"data/{fold}-0.parquet": own_shard(tmp_path / f"raw/data/{fold}-0.parquet", fold) for fold in ("a", "b")}
    with pytest.raises(UserError, match="split 'A'; use train"):
        list(open_source(make_data(source="folder", columns=DECLARED)))
    without_split = {name: column for name, column in DECLARED.items() if name != "split"}
    server.add("dataset", "us/rsicd", files)
    local, remote = (list(open_source(make_data(source=kind, columns=without_split))) for kind in ("folder", "hub"))
    assert local == remote and len(local) == 6
    assert local[0].captions == ("a port .", "two boats .") and [image.source for image in local[:3]] == ["A", "B", "A"]


def test_a_declared_split_is_read(server: HubServer, tmp_path: Path) -> None:
    for fold in ("train", "valid", "test"):
        own_shard(tmp_path / f"raw/{fold}-0.parquet", fold)
    images = list(open_source(make_data(source="folder", columns=DECLARED)))
    assert {(image.id[:4], image.split) for image in images} == {("trai", "train"), ("vali", "val"), ("test", "test")}


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        (None, "no column caption_1; found picture, raw, fold, collection, image; name them in data.columns"),
        (
            DECLARED | {"captions": ["raw", "en"]},
            "no column en; found picture, raw, fold, collection, image; name them",
        ),
        (DECLARED | {"image": "raw"}, "column raw is list<element: string>, not {bytes, path}; "),
        (DECLARED | {"captions": "picture"}, "column picture is struct<bytes: binary, path: string>, not string; "),
        (DECLARED | {"split": "part"}, "no column part; found "),
    ],
)
def test_wrong_columns_are_refused_before_a_shard_is_fetched(
    server: HubServer, tmp_path: Path, columns: dict[str, Any] | None, fault: str
) -> None:
    shard = own_shard(tmp_path / "train-0.parquet", "train", padding=200_000)
    server.add("dataset", "us/rsicd", {"data/train-0.parquet": shard})
    assert f"us/rsicd/data/train-0.parquet: {fault}" in str(explain_missing(make_data(columns=columns)))
    assert 0 < server.sent("train-0.parquet") < len(shard) / 5
    with pytest.raises(UserError):
        open_source(make_data(columns=columns))
    assert not Path(".cache/downloads/datasets/us--rsicd").exists()


def test_a_footer_larger_than_the_first_request_is_read(server: HubServer, tmp_path: Path) -> None:
    """Its length is in the last bytes."""
    many = {f"a column with a long name, number {number}": [1] for number in range(2000)}
    shard = write_shard(tmp_path / "0.parquet", image=[{"bytes": b"", "path": ""}], **many)
    server.add("dataset", "us/rsicd", {"0.parquet": shard})
    assert "us/rsicd/0.parquet: no column caption_1; found image, a column with" in str(explain_missing(make_data()))


def test_a_shard_that_is_no_parquet_and_two_configurations_are_refused(server: HubServer, tmp_path: Path) -> None:
    server.add("dataset", "us/rsicd", {"0.parquet": b"no such file"})
    assert "0.parquet is damaged, or not a Parquet file" in str(explain_missing(make_data()))
    server.add("dataset", "us/rsicd", {"en/train/0.parquet": b"", "de/train/0.parquet": b""})
    assert "us/rsicd: configurations de, en; set" in str(explain_missing(make_data()))


def test_columns_are_refused_where_there_are_no_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    Path("raw/captions.csv").write_text("source,split,image,caption_1\nA,train,a.jpg,a port .\n", encoding="utf-8")
    data = make_data(source="folder", columns=USUAL)
    assert "data.columns: only Parquet shards have declared columns, and raw holds captions.csv" in str(
        explain_missing(data)
    )
    with pytest.raises(UserError, match="set it to null"):
        open_source(data)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared cases are not here")
@pytest.mark.parametrize("columns", [None, {"image": "image", "captions": "captions"}])
def test_a_data_set_in_the_shape_of_rsicd_is_read_as_it_is_and_by_its_columns(
    server: HubServer, columns: dict[str, Any] | None
) -> None:
    files = {f"data/{path.name}": path.read_bytes() for path in (SHARED / "data").iterdir()}
    server.add("dataset", "us/rsicd", files)
    images = list(open_source(make_data(columns=columns)))
    assert len(images) == sum(pq.read_metadata(path).num_rows for path in (SHARED / "data").iterdir())
    assert {image.split for image in images} == {"train", "val", "test"}
    assert {len(image.captions) for image in images} == {5}
