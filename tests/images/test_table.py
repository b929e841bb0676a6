"""Captions are cleaned rule by rule; the Parquet file returns what was written, also to Hugging Face `datasets`."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captioning.base.errors import UserError
from captioning.images import table
from captioning.images.decoded import encode_png
from captioning.images.table import (
    CaptionedImage,
    apportion,
    clean_caption,
    draw_ids,
    is_nearly_empty,
    read_captions,
    read_images,
    read_table,
    stream_images,
    write_parquet,
)
from tests.helpers.apart import import_apart


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
def test_a_clean_caption_does_not_change_again(text: str) -> None:
    cleaned, _ = clean_caption(text)
    assert clean_caption(cleaned) == (cleaned, ())


def test_nearly_empty_captions_have_fewer_than_two_words() -> None:
    empty = ["", " .", "1 .", "port .", "\u6e2f .", "\u043f\u043e\u0440\u0442 .", "\U0001f6a2 \U0001f30a"]
    assert all(map(is_nearly_empty, empty))
    assert not any(map(is_nearly_empty, ["A port .", "\u6e2f\u53e3 .", "\u0e17\u0e48\u0e32 ."]))


def make_images(number: int) -> list[CaptionedImage]:
    def png(level: int) -> bytes:
        return encode_png(Image.new("RGB", (7, 5), (level, 0, 0)))

    return [
        CaptionedImage(f"S_{i}", "UCM", "train", png(i), f"S_{i}.png", (f"A port {i} .",) * (i % 5 + 1), '{"a": 1}')
        for i in range(number)
    ]


def test_written_images_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROW_GROUP", 3)
    images, path = make_images(8), tmp_path / "images.parquet"
    assert write_parquet(iter(images), path) == 8
    assert pq.ParquetFile(path).num_row_groups == 3
    assert list(stream_images(path)) == read_images(path) == images
    assert read_captions(path) == {image.id: image.captions for image in images}
    ids = ["S_7", "S_0", "S_4", "S_0"]
    assert [image.id for image in read_images(path, ids)] == read_table(path, ids)["id"].to_pylist() == ids
    assert read_images(path, ["S_4"]) == [images[4]]
    assert read_images(path, []) == read_table(path, []).to_pylist() == []
    assert read_table(path, ["S_2"], ["source", "id"]).to_pylist() == [{"source": "UCM", "id": "S_2"}]
    with pytest.raises(UserError, match="'S_9' and 1 more"):
        read_images(path, ["S_1", "S_9", "S_10"])
    write_parquet(images, tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_load_dataset_decodes_the_images(tmp_path: Path) -> None:
    """Run the README's line, offline (see conftest.py)."""
    datasets = import_apart("datasets")
    path = tmp_path / "images.parquet"
    write_parquet(make_images(3), path)
    rows = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(rows.features["image"], datasets.Image)
    image = rows[2]["image"]
    assert (image.size, image.mode, image.getpixel((6, 4))) == ((7, 5), "RGB", (2, 0, 0))
    assert (rows[2]["id"], rows[2]["source"], rows[2]["split"]) == ("S_2", "UCM", "train")
    assert rows[2]["captions"] == ["A port 2 ."] * 3


@pytest.mark.parametrize("content", [None, b"", b"no parquet here"])
def test_a_missing_or_damaged_file_is_a_user_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "images.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"images\.parquet"):
        read_captions(path)


@pytest.mark.parametrize("total", [0, 1, 7, 40, 1200, 44_521])
def test_apportion_is_exact_and_nearest(total: int) -> None:
    shares = {"a": 0.6, "b": 0.2, "c": 0.2}
    counts = apportion(total, shares)
    assert sum(counts.values()) == total
    assert all(abs(counts[name] - total * share) < 1 for name, share in shares.items())


def test_drawn_ids_depend_on_the_seed_and_are_sorted() -> None:
    ids = [f"i{number:02}" for number in range(30)]
    drawn = draw_ids(ids, 7, "scst train 1")
    assert drawn == sorted(set(drawn)) == draw_ids(ids, 7, "scst train 1") != draw_ids(ids, 7, "scst train 2")
    assert len(drawn) == 7 and set(drawn) <= set(ids)
    assert draw_ids(ids, 0, "x") == draw_ids(ids, 30, "x") == draw_ids(ids, 99, "x") == ids
