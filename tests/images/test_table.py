"""Cleaning is a table of small rules; the Parquet file gives back what went in, also to Hugging Face `datasets`."""

import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioning.base.errors import UserError
from captioning.images import table
from captioning.images.table import (
    CaptionedImage,
    apportion,
    clean_caption,
    draw_ids,
    is_nearly_empty,
    read_captions,
    read_examples,
    read_table,
    stream_examples,
    write_parquet,
)


@pytest.mark.parametrize(
    ("text", "cleaned", "rules"),
    [
        ("A port .", "A port .", ()),
        ("A\u00a0port .", "A port .", ("unusual spaces made plain",)),
        ("A \u200bport .", "A port .", ("zero-width characters removed",)),
        ("A \u202eport\u202c of \u2067x\u2069 .", "A port of x .", ("marks of direction removed",)),
        (
            "caf\u200be\u200f\u0301 .",
            "caf\u00e9 .",
            ("zero-width characters removed", "marks of direction removed", "unicode composed"),
        ),
        ("the airport\u2019s \u201crunway\u201d .", 'the airport\'s "runway" .', ("curly quotes straightened",)),
        ("A  port .", "A port .", ("repeated spaces collapsed",)),
        (" A port . ", "A port .", ("outer spaces stripped",)),
        ("A port . .", "A port .", ("repeated period collapsed",)),
        ("A port", "A port .", ("final period added",)),
        ("A port.", "A port .", ("final period set apart",)),
        ("Is it a port ?", "Is it a port ?", ()),
        ("A port of cafe\u0301s .", "A port of caf\u00e9s .", ("unicode composed",)),
        ("A\nport .", "A port .", ("unusual spaces made plain",)),
        ("A\x00 port .", "A port .", ("control characters removed",)),
        (" \u200b ", "", ("zero-width characters removed", "repeated spaces collapsed", "outer spaces stripped")),
    ],
)
def test_cleaning_rules(text: str, cleaned: str, rules: tuple[str, ...]) -> None:
    assert clean_caption(text) == (cleaned, rules)


@given(st.text(st.characters() | st.sampled_from(" .,\u200b\u200f\u202e\x01\u0301e\u00a0\u2019\n")))
def test_a_clean_caption_stays_as_it_is(text: str) -> None:
    cleaned, _ = clean_caption(text)
    assert clean_caption(cleaned) == (cleaned, ())


@pytest.mark.parametrize(
    ("caption", "empty"),
    [("", True), (" .", True), ("1 .", True), ("port .", True), ("A port .", False), ("\u6e2f .", True),
     ("\u6e2f\u53e3 .", False), ("\u0e17\u0e48\u0e32 .", False),
     ("\u043f\u043e\u0440\u0442 .", True), ("\U0001f6a2 \U0001f30a", True)],
)  # fmt: skip
def test_nearly_empty(caption: str, empty: bool) -> None:
    assert is_nearly_empty(caption) is empty


def _images(number: int) -> list[CaptionedImage]:
    def png(level: int) -> bytes:
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (level, 0, 0)).save(buffer, "PNG")
        return buffer.getvalue()

    return [
        CaptionedImage(
            f"S_{i}", "UCM", "train", png(i), f"S_{i}.png", (f"A port {i} .",) * (i % 5 + 1), '{"scene": "port"}'
        )
        for i in range(number)
    ]


def test_what_is_written_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROW_GROUP", 3)
    images, path = _images(8), tmp_path / "images.parquet"
    assert write_parquet(iter(images), path) == 8
    assert pq.ParquetFile(path).num_row_groups == 3
    assert list(stream_examples(path)) == read_examples(path) == images
    assert read_captions(path) == {one.id: one.captions for one in images}
    wanted = ["S_7", "S_0", "S_4", "S_0"]
    assert [one.id for one in read_examples(path, wanted)] == wanted
    assert read_examples(path, ["S_4"]) == [images[4]]
    assert read_examples(path, []) == []
    assert read_table(path, ["S_2"], ["source", "id"]).to_pylist() == [{"source": "UCM", "id": "S_2"}]


def test_same_images_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_parquet(_images(5), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_datasets_decodes_the_file(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    write_parquet(_images(3), tmp_path / "images.parquet")
    loaded = datasets.Dataset.from_parquet(str(tmp_path / "images.parquet"), cache_dir=str(tmp_path / "cache"))
    assert isinstance(loaded.features["image"], datasets.Image)
    assert loaded[2]["image"].getpixel((0, 0)) == (2, 0, 0)
    assert loaded[2]["captions"] == ["A port 2 ."] * 3


def test_load_dataset_decodes_images_of_their_size(tmp_path: Path) -> None:
    """The README's line, offline (see conftest.py)."""
    datasets = pytest.importorskip("datasets")
    path, buffer = tmp_path / "images.parquet", io.BytesIO()
    Image.new("RGB", (7, 5), (1, 2, 3)).save(buffer, "PNG")
    write_parquet([CaptionedImage("a", "UCM", "train", buffer.getvalue(), "a.png", ("A port .",))], path)
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=cache)
    (row,) = loaded
    assert isinstance(row["image"], Image.Image)
    assert (row["image"].size, row["image"].mode, row["image"].getpixel((6, 4))) == ((7, 5), "RGB", (1, 2, 3))
    assert (row["id"], row["source"], row["split"], row["captions"]) == ("a", "UCM", "train", ["A port ."])


def test_a_missing_id_is_named(tmp_path: Path) -> None:
    write_parquet(_images(3), tmp_path / "images.parquet")
    with pytest.raises(UserError, match="'S_9' and 1 more"):
        read_examples(tmp_path / "images.parquet", ["S_1", "S_9", "S_10"])


@pytest.mark.parametrize("content", [None, b"", b"no parquet here"])
def test_no_parquet_file_is_a_user_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "images.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"images\.parquet.*run download"):
        read_captions(path)


@pytest.mark.parametrize("total", [0, 1, 7, 40, 1200, 44_521])
def test_apportion_is_whole_and_nearest(total: int) -> None:
    shares = {"a": 0.6, "b": 0.2, "c": 0.2}
    counts = apportion(total, shares)
    assert sum(counts.values()) == total
    assert all(abs(counts[name] - total * share) < 1 for name, share in shares.items())


def test_drawn_ids_are_of_the_seed_and_sorted() -> None:
    ids = [f"i{number:02}" for number in range(30)]
    drawn = draw_ids(ids, 7, "scst train 1")
    assert drawn == sorted(set(drawn)) == draw_ids(ids, 7, "scst train 1") != draw_ids(ids, 7, "scst train 2")
    assert len(drawn) == 7 and set(drawn) <= set(ids)
    assert draw_ids(ids, 0, "x") == draw_ids(ids, 30, "x") == draw_ids(ids, 99, "x") == ids
