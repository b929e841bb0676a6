"""What `datasets` wrote reads back as it was, with ids, sources and splits by rule; damage and strange columns are
told."""

import csv
import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pictures

from captioning.base.errors import UserError
from captioning.base.hashes import sha256
from captioning.data.readers.folder import read_folder
from captioning.data.readers.rows import CAPTIONS, SetAside
from captioning.data.readers.shards import read_shards
from captioning.data.sources import find_shards

GOOD = ["A port .", "Boats in a port .", "There is a port .", "It is a port .", "A port with boats ."]
SAMPLE = os.environ.get("RISC_SAMPLE", "")  # a folder in RISC's layout with its real dirt


def picture(shade: int = 0, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Pictures.new(mode, (8, 8), shade if mode == "L" else (shade, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def row(path: str | None, shade: int = 0, **columns: Any) -> dict[str, Any]:
    return {"image": {"bytes": picture(shade), "path": path}} | dict(zip(CAPTIONS, GOOD, strict=True)) | columns


def written(folder: Path, name: str, rows: list[dict[str, Any]], **options: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def read(folder: Path, *draw: int) -> Any:
    return read_shards(find_shards(folder), "risc", *draw)


def test_what_datasets_pushed_reads_as_the_folder_it_was_made_of(tmp_path: Path) -> None:
    """The Hub's format, written as `push_to_hub` does: bytes embedded, two shards under data/, labels as classes."""
    from datasets import ClassLabel, Dataset, Features, Image, Value
    from datasets.table import embed_table_storage

    (tmp_path / "raw/resized").mkdir(parents=True)
    rows = []
    for place in range(7):
        name = f"{('NWPU', 'UCM')[place % 2]}_{place}.jpg"
        (tmp_path / "raw/resized" / name).write_bytes(picture(place))
        rows.append([name.split("_")[0], ("train", "val")[place % 2], name, f"Port number {place} .", *GOOD[1:]])
    header = ["source", "split", "image", *CAPTIONS]
    with (tmp_path / "raw/captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
    columns["image"] = [str(tmp_path / "raw/resized" / name) for name in columns["image"]]
    kinds = {"source": ClassLabel(names=["UCM", "NWPU"]), "split": Value("string"), "image": Image()}
    made = Dataset.from_dict(columns, Features(kinds | dict.fromkeys(CAPTIONS, Value("string"))))
    embedded = made.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
    (tmp_path / "pushed/data").mkdir(parents=True)
    for place in range(2):
        part = embedded.shard(2, place, contiguous=True)
        part.to_parquet(str(tmp_path / f"pushed/data/train-{place:05d}-of-00002.parquet"))
    source, beside = read(tmp_path / "pushed"), read_folder(tmp_path / "raw")
    assert list(source) == list(beside)
    assert (source.rows, source.captions, source.set_aside) == (7, 35, [])
    assert source.origin["sha256"] == {
        name: sha256(path) for name, path in find_shards(tmp_path / "pushed").items()
    }  # fmt: skip
    assert list(read(tmp_path / "pushed", 3, 1)) == list(read_folder(tmp_path / "raw", 3, 1)), (
        "the draw is the folder's"
    )


def test_ids_are_file_names_where_they_serve_else_row_numbers(tmp_path: Path) -> None:
    rows = [
        row("a/NWPU_1.jpg"),
        row("same.jpg", 1), row("x/same.png", 2),  # two images of one name
        row(None), row(""), row("a b.jpg"), row(".."), row("é" * 200 + ".jpg"),
        row("row-000001.jpg"),
        row("b.png", image={"bytes": picture(3, "PNG"), "path": None}),
    ]  # fmt: skip
    written(tmp_path, "0.parquet", rows[:4])
    written(tmp_path, "1.parquet", rows[4:])
    source = read(tmp_path)
    ids = [(one.id, one.path) for one in source]
    assert ids[0] == ("NWPU_1", "NWPU_1.jpg")
    assert ids[1:9] == [(f"row-{number:06d}", f"row-{number:06d}.jpg") for number in range(2, 10)]
    assert ids[9] == ("row-000010", "row-000010.png")
    assert source.set_aside == []


def test_a_source_is_the_column_else_the_name_in_riscs_form_else_the_repository(tmp_path: Path) -> None:
    rows = [row("NWPU_1.jpg"), row("airport_2.jpg"), row(None), row("UCM_x.jpg"), row("d/UCM_4.jpeg")]
    written(tmp_path / "none", "0.parquet", rows)
    assert [one.source for one in read(tmp_path / "none")] == ["NWPU", "risc", "risc", "risc", "UCM"]
    named = [one | {"source": name} for one, name in zip(rows, ["A", " B ", "", None, "A"], strict=True)]
    written(tmp_path / "column", "0.parquet", named)
    assert [one.source for one in read(tmp_path / "column")] == ["A", "B", "risc", "risc", "A"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"], ["", ""]),
        (["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"], ["test", "train"]),
        (["data/validation-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"], ["train", "val"]),
        (["default/train/0000.parquet", "default/validation/0000.parquet"], ["train", "val"]),
        (["default/partial-train/0000.parquet", "default/test/0000.parquet"], ["train", "test"]),
        (["0000.parquet", "0001.parquet"], ["", ""]),
    ],
)
def test_a_split_is_the_shards_where_there_are_several(tmp_path: Path, names: list[str], splits: list[str]) -> None:
    for shade, name in enumerate(names):
        written(tmp_path, name, [row(None, shade)])
    assert [one.split for one in read(tmp_path)] == splits


def test_a_split_column_goes_before_the_shards_name(tmp_path: Path) -> None:
    rows = [row(None, split=split) for split in ("validation", "test", "", None)]
    written(tmp_path, "data/train-0.parquet", rows)
    written(tmp_path, "data/test-0.parquet", [row(None, split="train")])
    assert [one.split for one in read(tmp_path)] == ["train", "val", "test", "", ""]


def test_dirt_is_set_aside_with_its_row_number(tmp_path: Path) -> None:
    rows = [
        row("a.jpg", caption_1=" .", caption_2=None),
        row("b.jpg", image={"bytes": None, "path": "b.jpg"}),
        row("c.jpg", image={"bytes": picture()[:200], "path": "c.jpg"}),
        row("d.jpg", image={"bytes": picture(9, "PNG", "L"), "path": "d.jpg"}),
        row("e.jpg", **dict.fromkeys(CAPTIONS)),
    ]
    written(tmp_path, "0.parquet", rows)
    source = read(tmp_path)
    assert [(one.id, len(one.captions)) for one in source] == [("a", 3), ("d", 5)]
    assert source.captions == 5 * 5 - 1 - 5
    assert source.fired_rules == {"image converted to RGB PNG": 1}
    assert [one for one in source.set_aside if "nearly" not in one.reason] == [
        SetAside(2, "b.jpg", "holds no image bytes"),
        SetAside(3, "c.jpg", "unreadable image: broken or truncated: Truncated File Read"),
        SetAside(5, "e.jpg", "no usable caption; every image needs one"),
    ]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"image": {"bytes": b"", "path": ""}, "caption": "a"}], "no column caption_1, caption_2"),
        ([row(None) | {"image": "a.jpg"}], "column image is string, not {bytes, path}; save it with the Image feature"),
        ([row(None, caption_2=3)], "column caption_2 holds no text"),
        (
            [row(None) | {"image": {"bytes": b"a", "path": b"a.jpg"}}],
            "0.parquet: column image.path is binary, not string; ",
        ),
        (
            [row(None) | {"image": {"bytes": b"a", "path": 1}}],
            "0.parquet: column image.path is int64, not string; save",
        ),
        (
            [row(None) | {"image": {"bytes": 1, "path": "a.jpg"}}],
            "0.parquet: column image.bytes is int64, not binary; ",
        ),
        (
            [row(None) | {"image": {"bytes": [1], "path": ""}}],
            "column image.bytes is list<element: int64>, not binary; ",
        ),
        (
            [row(None, split="a"), row(None, split="dev")],
            "0.parquet: column split holds 'dev'; use train, val, test or",
        ),
        ([row(None, source=" UCM\x1b[2J ")], r"0.parquet: source 'UCM\x1b[2J' holds a control character; remove it"),
    ],
)
def test_columns_that_are_not_the_format_are_told(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    written(tmp_path, "0.parquet", rows)
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert f"{tmp_path}/0.parquet: " in str(caught.value) and said in str(caught.value)


def test_text_that_is_no_utf8_is_told(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([row("a.jpg")])
    broken = pa.array([b"\xff"]).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("caption_1"), "caption_1", broken), tmp_path / "0.parquet")
    with pytest.raises(UserError, match=r"0\.parquet: damaged"):
        read(tmp_path)


def test_damaged_empty_and_mixed_shards_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "cut", "0.parquet", [row(None)] * 50)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"0\.parquet: damaged, or no Parquet file"):
        read(tmp_path / "cut")
    written(tmp_path / "none", "0.parquet", [row(None)]).write_bytes(b"")
    with pytest.raises(UserError, match=r"0\.parquet: damaged"):
        read(tmp_path / "none")
    pq.write_table(pa.Table.from_pylist([row(None)]).slice(0, 0), tmp_path / "0.parquet")
    with pytest.raises(UserError, match="risc: no rows"):
        read_shards({"0.parquet": tmp_path / "0.parquet"}, "risc")
    for name in ("default/train/0.parquet", "other/train/0.parquet"):
        written(tmp_path / "two", name, [row(None)])
    with pytest.raises(UserError, match="risc: configurations default, other"):
        read(tmp_path / "two")
    path = written(tmp_path / "data", "0.parquet", [row(None, shade) for shade in range(200)], compression="snappy")
    content = bytearray(path.read_bytes())
    content[200:1200] = bytes(1000)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"0\.parquet: damaged"):
        list(read(tmp_path / "data"))


def test_a_folder_is_riscs_where_it_holds_the_table_else_the_hubs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither .*captions\.csv nor Parquet files are there; unpack RISCM\.zip"):
        find_shards(tmp_path)
    written(tmp_path, ".cache/0.parquet", [row(None)])
    with pytest.raises(UserError, match="neither"):
        find_shards(tmp_path)
    written(tmp_path, "data/0.parquet", [row(None)])
    assert list(find_shards(tmp_path)) == ["data/0.parquet"]
    (tmp_path / "captions.csv").touch()
    assert find_shards(tmp_path) == {}


@pytest.mark.skipif(not SAMPLE, reason="RISC_SAMPLE names no folder")
def test_a_sample_of_risc_reads_as_its_folder(tmp_path: Path) -> None:
    rows = []
    with (Path(SAMPLE) / "captions.csv").open(encoding="utf-8-sig", newline="") as file:
        for told in csv.DictReader(file):
            path = Path(SAMPLE) / "resized" / told["image"]
            rows.append(told | {"image": {"bytes": path.read_bytes(), "path": path.name}} if path.is_file() else None)
    kept = [one for one in rows if one]
    for place in range(3):
        written(tmp_path, f"data/train-{place:05d}-of-00003.parquet", kept[place * 400 : (place + 1) * 400])
    source, beside = read(tmp_path), read_folder(Path(SAMPLE))
    assert list(source) == list(beside)
    assert source.fired_rules == beside.fired_rules
