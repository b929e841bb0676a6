"""What `datasets` wrote reads back with ids, sources and splits by rule; damage and other columns are refused."""

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from captioning.base.errors import UserError
from captioning.base.hashes import sha256
from captioning.data.readers.folder.forms import SHARDS, find_form, read_folder
from captioning.data.readers.rows import CAPTIONS, SetAside, Source
from captioning.data.readers.shards.read import read_shards
from captioning.data.readers.shards.schema import schema_faults
from captioning.data.splits import SplitImages, perceptual_hash
from captioning.params.sections import Columns
from tests.helpers.apart import import_apart
from tests.helpers.owned_data import jpeg

TEXTS = ["A port .", "Boats in a port .", "There is a port .", "It is a port .", "A port with boats ."]


def encode_image(shade: int = 0, kind: str = "JPEG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Pillow.new(mode, (8, 8), shade if mode == "L" else (shade, 0, 0)).save(buffer, kind)
    return buffer.getvalue()


def make_row(path: str | None, shade: int = 0, **columns: Any) -> dict[str, Any]:
    return {"image": {"bytes": encode_image(shade), "path": path}} | dict(zip(CAPTIONS, TEXTS, strict=True)) | columns


def write_shard(folder: Path, name: str, rows: list[dict[str, Any]], **options: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def shards_below(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.parquet")}


def read(folder: Path, *sample: int) -> Source:
    return read_shards(shards_below(folder), "risc", *sample)


def test_what_datasets_pushed_reads_as_its_folder(tmp_path: Path) -> None:
    """As `push_to_hub` writes it: embedded bytes, two shards below data/, class labels."""
    datasets, embed_table_storage = import_apart("datasets"), import_apart("datasets.table").embed_table_storage
    raw, pushed = tmp_path / "raw", tmp_path / "pushed"
    (raw / "resized").mkdir(parents=True)
    rows = []
    for index in range(7):
        source, split = ("NWPU", "UCM")[index % 2], ("train", "val")[index % 2]
        (raw / "resized" / f"{source}_{index}.jpg").write_bytes(encode_image(index))
        texts = dict(zip(CAPTIONS, [f"Port number {index} .", *TEXTS[1:]], strict=True))
        rows.append({"source": source, "split": split, "image": f"{source}_{index}.jpg"} | texts)
    with (raw / "captions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    rows = [row | {"image": str(raw / "resized" / row["image"])} for row in rows]
    text, classes = datasets.Value("string"), datasets.ClassLabel(names=["UCM", "NWPU"])
    kinds = {"source": classes, "split": text, "image": datasets.Image()} | dict.fromkeys(CAPTIONS, text)
    dataset = datasets.Dataset.from_list(rows, datasets.Features(kinds))
    embedded = dataset.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
    (pushed / "data").mkdir(parents=True)
    for index in range(2):
        shard = embedded.shard(2, index, contiguous=True)
        shard.to_parquet(str(pushed / f"data/train-{index:05d}-of-00002.parquet"))
    source = read(pushed)
    assert list(source) == list(read_folder(raw))
    assert (source.rows, source.captions, source.set_aside) == (7, 35, [])
    assert source.origin["sha256"] == {name: sha256(path) for name, path in shards_below(pushed).items()}
    assert list(read(pushed, 3, 1)) == list(read_folder(raw, 3, 1)), "the sample is not that of the folder"


def test_an_id_is_a_valid_unique_file_name_or_the_row_number(tmp_path: Path) -> None:
    png = make_row("b.png", image={"bytes": encode_image(3, "PNG"), "path": None})
    paths = ["same.jpg", "x/same.png", None, "", "a\nb.jpg", "..", "é" * 200 + ".jpg", "row-000001.jpg"]
    rows = [make_row("a/NWPU_1.jpg"), *(make_row(path, shade) for shade, path in enumerate(paths)), png]
    write_shard(tmp_path, "0.parquet", rows[:4])
    write_shard(tmp_path, "1.parquet", rows[4:])
    source = read(tmp_path)
    numbers = [(f"row-{number:06d}", f"row-{number:06d}.jpg") for number in range(2, 10)]
    ids = [("NWPU_1", "NWPU_1.jpg"), *numbers, ("row-000010", "row-000010.png")]
    assert [(image.id, image.path) for image in source] == ids
    assert source.set_aside == []


def test_a_source_is_the_column_or_the_prefix_or_the_repository(tmp_path: Path) -> None:
    rows = [make_row(path) for path in ("NWPU_1.jpg", "airport_2.jpg", None, "UCM_x.jpg", "d/UCM_4.jpeg")]
    write_shard(tmp_path / "none", "0.parquet", rows)
    assert [image.source for image in read(tmp_path / "none")] == ["NWPU", "risc", "risc", "risc", "UCM"]
    named = [row | {"source": name} for row, name in zip(rows, ["A", " B ", "", None, "A"], strict=True)]
    write_shard(tmp_path / "column", "0.parquet", named)
    assert [image.source for image in read(tmp_path / "column")] == ["A", "B", "risc", "risc", "A"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["data/train-00000-of-00002", "data/train-00001-of-00002"], ["", ""]),
        (["data/test-00000-of-00001", "data/train-00000-of-00001"], ["test", "train"]),
        (["default/train/0000", "default/validation/0000"], ["train", "val"]),
        (["default/partial-train/0000", "default/test/0000"], ["train", "test"]),
        (["0000", "0001"], ["", ""]),
    ],
)
def test_a_split_is_in_the_names_of_shards_if_they_name_several(
    tmp_path: Path, names: list[str], splits: list[str]
) -> None:
    for shade, name in enumerate(names):
        write_shard(tmp_path, f"{name}.parquet", [make_row(None, 50 * shade)])
    assert [image.split for image in read(tmp_path)] == splits


def test_a_split_column_overrides_the_names_of_shards(tmp_path: Path) -> None:
    splits = ("validation", "", None)
    write_shard(
        tmp_path, "data/train-0.parquet", [make_row(None, 50 * k, split=split) for k, split in enumerate(splits)]
    )
    write_shard(tmp_path, "data/test-0.parquet", [make_row(None, split="train")])
    assert [image.split for image in read(tmp_path)] == ["train", "val", "", ""]


def test_unusable_rows_are_set_aside_with_their_number(tmp_path: Path) -> None:
    rows = [
        make_row("a.jpg", caption_1=" .", caption_2=None),
        make_row("b.jpg", image={"bytes": None, "path": "b.jpg"}),
        make_row("c.jpg", image={"bytes": encode_image()[:200], "path": "c.jpg"}),
        make_row("d.jpg", image={"bytes": encode_image(9, "PNG", "L"), "path": "d.jpg"}),
        make_row("e.jpg", **dict.fromkeys(CAPTIONS)),
    ]
    write_shard(tmp_path, "0.parquet", rows)
    source = read(tmp_path)
    assert [(image.id, len(image.captions)) for image in source] == [("a", 3), ("d", 5)]
    assert source.captions == 5 * 5 - 1 - 5
    assert source.fired_rules == {"image converted to RGB PNG": 1}
    assert [aside for aside in source.set_aside if "nearly" not in aside.reason] == [
        SetAside(2, "b.jpg", "holds no image bytes"),
        SetAside(3, "c.jpg", "unreadable image: broken or truncated: Truncated File Read"),
        SetAside(5, "e.jpg", "no usable caption; every image needs one"),
    ]


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"image": "a.jpg"}, "column image is string, not {bytes, path}; save images with the Image feature"),
        ({"caption_2": 3}, "column caption_2 is int64, not string"),
        ({"image": {"bytes": b"a", "path": b"a.jpg"}}, "column image.path is binary, not string; "),
        ({"image": {"bytes": [1], "path": ""}}, "column image.bytes is list<element: int64>, not binary; "),
        ({"split": "night"}, "split 'night'; use train, val, test or"),
        ({"source": " UCM\x1b[2J "}, r"source 'UCM\x1b[2J' holds a control character; remove it"),
    ],
)
def test_columns_of_another_format_are_refused(tmp_path: Path, columns: dict[str, Any], fault: str) -> None:
    path = write_shard(tmp_path, "0.parquet", [make_row(None) | columns])
    with pytest.raises(UserError) as caught:
        read(tmp_path)
    assert f"{path}: {fault}" in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"captions": "caption_1", "split": "number"}, "column number is int64, not string or a class label"),
        ({"captions": "caption_1", "source": "image"}, "column image is struct<"),
        ({"captions": ["caption_1", "caption_1"]}, "data.columns names a column of captions twice"),
    ],
)
def test_declared_columns_of_another_kind_are_refused(tmp_path: Path, columns: dict[str, Any], fault: str) -> None:
    path = write_shard(tmp_path, "0.parquet", [make_row(None) | {"number": 3}])
    declared = Columns(image="image", **columns)
    (message,) = schema_faults({str(path): pq.read_schema(path)}, declared)
    assert message.startswith(f"{path}: {fault}")


def test_damaged_empty_and_mixed_shards_are_refused(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "cut", "0.parquet", [make_row(None)] * 50)
    path.write_bytes(path.read_bytes()[:-5])
    path = write_shard(tmp_path / "data", "0.parquet", [make_row(None, shade) for shade in range(200)])
    content = bytearray(path.read_bytes())
    content[200:1200] = bytes(1000)
    path.write_bytes(content)
    table = pa.Table.from_pylist([make_row("a.jpg")])
    not_utf8 = table.set_column(
        table.column_names.index("caption_1"), "caption_1", pa.array([b"\xff"]).view(pa.string())
    )
    (tmp_path / "text").mkdir()
    pq.write_table(not_utf8, tmp_path / "text/0.parquet")
    for folder in ("cut", "data", "text"):
        with pytest.raises(UserError, match=r"0\.parquet: damaged, or not a Parquet file"):
            list(read(tmp_path / folder))
    write_shard(tmp_path / "columns", "0.parquet", [{"image": {"bytes": b"", "path": ""}, "words": "a"}])
    with pytest.raises(UserError, match="no column caption_1; found image, words"):
        read(tmp_path / "columns")
    pq.write_table(table.slice(0, 0), tmp_path / "0.parquet")
    with pytest.raises(UserError, match="risc: no rows"):
        read_shards({"0.parquet": tmp_path / "0.parquet"}, "risc")
    for name in ("default/train/0.parquet", "other/train/0.parquet"):
        write_shard(tmp_path / "two", name, [make_row(None)])
    with pytest.raises(UserError, match="risc: configurations default, other"):
        read(tmp_path / "two")


def test_a_folder_with_riscs_table_is_not_read_as_shards(tmp_path: Path) -> None:
    write_shard(tmp_path, ".cache/0.parquet", [make_row(None)])
    with pytest.raises(UserError, match=r"no captions that are read; it holds no file"):
        find_form(tmp_path)
    write_shard(tmp_path, "data/0.parquet", [make_row(None)])
    assert find_form(tmp_path) == SHARDS
    (tmp_path / "captions.csv").touch()
    assert find_form(tmp_path) == "captions.csv (RISC)"


TWO = ["A port .", "Boats in a port ."]


@pytest.mark.parametrize(
    ("columns", "captions"),
    [
        ({"captions": TWO}, TWO),
        ({"captions": ["A port .", None]}, TWO[:1]),
        ({"text": "A port ."}, TWO[:1]),
        ({"caption": "['A port .' 'Boats in a port .']"}, TWO),
        ({f"caption_{number}": f"Port {number} is full ." for number in range(1, 21)}, None),
    ],
)
def test_captions_are_in_any_number_of_columns_or_in_one_as_texts_or_lists(
    tmp_path: Path, columns: dict[str, Any], captions: list[str] | None
) -> None:
    image = {"bytes": encode_image(), "path": None}
    write_shard(tmp_path, "0.parquet", [{"image": image, "filename": "rsicd_images/port_1.jpg"} | columns])
    source = read_folder(tmp_path)
    (row,) = source
    assert (row.id, list(row.captions)) == ("port_1", captions or list(columns.values()))
    assert source.captions == len(row.captions) and source.set_aside == []


def one_caption(path: str | None, shade: int, text: str, **columns: Any) -> dict[str, Any]:
    return {"image": {"bytes": encode_image(shade), "path": path}, "caption": text, **columns}


@pytest.mark.parametrize("names", [("a.jpg", "b.jpg"), (None, None), ("same.jpg", "same.jpg")])
def test_rows_of_one_image_are_its_captions_also_in_other_shards(
    names: tuple[str | None, str | None], tmp_path: Path
) -> None:
    first, second = names
    rows = [one_caption(first, 0, "A port ."), one_caption(second, 90, "A lake ."), one_caption(first, 0, "A pier .")]
    write_shard(tmp_path, "data/train-0.parquet", rows)
    write_shard(tmp_path, "data/train-1.parquet", [one_caption(second, 90, "A lake .")])
    source = read(tmp_path)
    images = list(source)
    assert [image.captions for image in images] == [("A port .", "A pier ."), ("A lake .", "A lake .")]
    assert [image.id for image in images] == (["a", "b"] if first == "a.jpg" else ["row-000001", "row-000002"])
    assert (source.rows, source.captions, source.set_aside) == (2, 4, [])
    assert [image.id for image in read(tmp_path, 1, 1)] in ([images[0].id], [images[1].id])


def test_equal_images_in_two_splits_are_brought_into_one_split(tmp_path: Path) -> None:
    """They stay two images here, each with its captions; the stage `split` takes both for test images."""
    pairs = [("a.jpg", "train"), ("a.jpg", "test"), ("b.jpg", "val"), ("c.jpg", "train")]
    rows = [{"image": {"bytes": jpeg(name), "path": name}, "text": "A port .", "split": split} for name, split in pairs]
    write_shard(tmp_path, "0.parquet", rows)
    images = list(read(tmp_path))
    ids = ["row-000001", "row-000002", "b", "c"]
    assert [(image.id, image.split) for image in images] == list(
        zip(ids, ["train", "test", "val", "train"], strict=True)
    )
    hashes = [perceptual_hash(image.image) for image in images]
    splits = SplitImages(ids, ["risc"] * 4, [image.split for image in images], hashes, 2, {}, 1)
    assert splits.split("own", splits.group_images()) == {"train": ["c"], "validation": ["b"], "test": ids[:2]}


def test_a_row_that_repeats_captions_and_rows_without_bytes_are_set_aside(tmp_path: Path) -> None:
    empty = {"image": {"bytes": None, "path": None}}
    write_shard(tmp_path, "0.parquet", [make_row("a.jpg"), make_row("a.jpg"), *([make_row(None) | empty] * 2)])
    source = read(tmp_path)
    assert [image.id for image in source] == ["a"]
    assert [(aside.line, aside.reason) for aside in source.set_aside] == [
        (2, "same image as line 1; leave one of the rows"),
        (3, "holds no image bytes"),
        (4, "holds no image bytes"),
    ]


def test_hidden_and_system_files_in_shards_are_passed_over(tmp_path: Path) -> None:
    """A hidden folder of the machine on which a shard was written means nothing."""
    hidden = ["._a.png", "__MACOSX/a.png", "images/.a.png", ".git/a.png", "Thumbs.db", "/data/@eaDir/a.png"]
    kept = ["/home/me/.cache/huggingface/b.png", "../c.png", "./d.png"]
    write_shard(tmp_path, "0.parquet", [make_row(path, 9 * k) for k, path in enumerate([*hidden, *kept])])
    source = read(tmp_path)
    assert [image.id for image in source] == ["b", "c", "d"]
    assert (source.rows, source.captions, source.set_aside) == (3, 15, [])
