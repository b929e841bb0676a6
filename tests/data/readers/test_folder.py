"""A folder is checked whole; dirt is set aside with its reason; the drawn world keeps RISC's proportions."""

import csv
import io
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from captioning.base.errors import UserError
from captioning.data.readers.captions_csv import COLUMNS
from captioning.data.readers.drawn import draw_world
from captioning.data.readers.folder import read_folder
from captioning.data.readers.rows import SetAside
from captioning.data.sources import open_source
from captioning.data.world.captions import recognise

GOOD = ["A port .", "Boats in a port .", "There is a port .", "It is a port .", "A port with boats ."]


def _image(path: Path, mode: str = "RGB", kind: str = "JPEG") -> bytes:
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, (8, 8)).save(path, kind)
    return path.read_bytes()


def _table(path: Path, rows: list[list[str]], columns: tuple[str, ...] = COLUMNS) -> None:
    with (path / "captions.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([columns, *rows])


def test_pictures_behind_a_link_are_refused_where_dvc_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere nobody expects DVC to see them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large").mkdir()
    for place in ("data/raw", "elsewhere"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "resized").symlink_to(tmp_path / "large")
        _table(tmp_path / place, [["UCM", "val", "a.jpg", *GOOD]])
    _image(tmp_path / "large/a.jpg")
    data = dict(source="folder", images=0, seed=1, declared=None)
    with pytest.raises(UserError, match=r"data/raw/resized is a link .* data\.path"):
        open_source(SimpleNamespace(path="data/raw", **data))
    assert open_source(SimpleNamespace(path="elsewhere", **data)).rows == 1


def test_bytes_are_kept_and_captions_cleaned(tmp_path: Path) -> None:
    under, beside = _image(tmp_path / "resized/a.jpg"), _image(tmp_path / "b.png", kind="PNG")
    _table(tmp_path, [["UCM", "val", "a.jpg", "A\u00a0port", *GOOD[1:]], ["UCM", "", "b.png", *GOOD]])
    source = read_folder(tmp_path)
    first, second = source
    assert (first.id, first.split, first.image, first.path, first.facts) == ("a", "val", under, "a.jpg", "")
    assert first.captions == tuple(GOOD)
    assert second.image == beside
    assert source.fired_rules == {"unusual spaces made plain": 1, "final period added": 1}
    assert source.set_aside == []


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "PNG"), ("RGBA", "PNG"), ("CMYK", "JPEG"), ("RGB", "BMP"), ("P", "GIF")]
)
def test_other_images_become_rgb_png(tmp_path: Path, mode: str, kind: str) -> None:
    _image(tmp_path / "a.img", mode, kind)
    _table(tmp_path, [["UCM", "train", "a.img", *GOOD]])
    source = read_folder(tmp_path)
    (only,) = source
    with Image.open(io.BytesIO(only.image)) as image:
        assert (image.mode, image.format) == ("RGB", "PNG")
    laid = {"image converted to RGB PNG: transparency laid on white": 1} if mode == "RGBA" else {}
    assert source.fired_rules == {"image converted to RGB PNG": 1} | laid


def test_dirt_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    _image(tmp_path / "a.jpg")
    (tmp_path / "broken.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:300])
    _image(tmp_path.parent / "outside.jpg")
    rows = [
        ["UCM", "train", "missing.jpg", *GOOD],
        ["UCM", "train", "broken.jpg", *GOOD],
        ["UCM", "train", "../outside.jpg", *GOOD],
        ["UCM", "train", "..", *GOOD],
        ["UCM", "train", "a.jpg", " .", "1 .", *GOOD[2:]],
        ["UCM", "train", "a.jpg", *GOOD],
    ]
    _table(tmp_path, rows)
    source = read_folder(tmp_path)
    (only,) = source
    assert only.captions == tuple(GOOD[2:])
    assert source.set_aside == [
        SetAside(2, "missing.jpg", "no such file"),
        SetAside(3, "broken.jpg", "unreadable image: broken or truncated: Truncated File Read"),
        SetAside(4, "../outside.jpg", "its name is no plain file name"),
        SetAside(5, "..", "its name is no plain file name"),
        SetAside(6, "a.jpg", "caption_1 is nearly empty: '.'"),
        SetAside(6, "a.jpg", "caption_2 is nearly empty: '1 .'"),
        SetAside(7, "a.jpg", "same name as line 6, endings left out; rename one"),
    ]


@pytest.mark.parametrize("name", ["a" * 252 + ".jpg", "é" * 126 + ".jpg", "a" * 5000])
def test_a_name_longer_than_a_file_system_holds_is_set_aside(tmp_path: Path, name: str) -> None:
    """256 bytes and more; in the second they are 130 characters."""
    _image(tmp_path / "a.jpg")
    _table(tmp_path, [["UCM", "train", name, *GOOD], ["UCM", "train", "a.jpg", *GOOD]])
    source = read_folder(tmp_path)
    assert [one.id for one in source] == ["a"]
    assert source.set_aside == [SetAside(2, name, "its name is longer than 255 bytes")]


def test_a_name_of_255_bytes_is_taken(tmp_path: Path) -> None:
    name = "a" * 251 + ".jpg"
    _image(tmp_path / name)
    _table(tmp_path, [["UCM", "train", name, *GOOD]])
    assert [one.path for one in read_folder(tmp_path)] == [name]


def test_a_source_and_a_split_have_no_outer_spaces(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        _image(tmp_path / name)
    _table(tmp_path, [[" A ", " train ", "a.jpg", *GOOD], ["A", " ", "b.jpg", *GOOD]])
    assert [(one.source, one.split) for one in read_folder(tmp_path)] == [("A", "train"), ("A", "")]


def test_an_image_without_captions_is_set_aside(tmp_path: Path) -> None:
    _image(tmp_path / "a.jpg")
    _table(tmp_path, [["UCM", "train", "a.jpg", *[" ."] * 5]])
    source = read_folder(tmp_path)
    assert list(source) == []
    assert len(source.set_aside) == 6
    assert source.set_aside[-1] == SetAside(2, "a.jpg", "no usable caption; every image needs one")


def test_all_faults_of_a_table_are_told_at_once(tmp_path: Path) -> None:
    _table(tmp_path, [["UCM", "dev", "a.jpg", *GOOD], ["", "train", "b.jpg", *GOOD], ["UCM", "train", "c.jpg"]])
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path)
    message = str(caught.value)
    assert [f"captions.csv:{line}:" in message for line in (2, 3, 4)] == [True] * 3
    for fault in ("'dev'; use train, val, test", "'b.jpg' has no source", "'c.jpg' has too few"):
        assert fault in message


def test_missing_table_and_columns(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"captions\.csv.*data\.path"):
        read_folder(tmp_path)
    _table(tmp_path, [["a.jpg"]], ("image",))
    with pytest.raises(UserError, match=r"captions\.csv:1: no column source, split, caption_1"):
        read_folder(tmp_path)
    _table(tmp_path, [])
    with pytest.raises(UserError, match="no rows"):
        read_folder(tmp_path)
    (tmp_path / "captions.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_folder(tmp_path)


def test_drawn_world_keeps_proportions_and_facts() -> None:
    images = list(draw_world(100, 32, seed=1))
    assert Counter(one.source for one in images) == {"NWPU": 71, "RSICD": 24, "UCM": 5}
    assert Counter(one.split for one in images if one.source == "NWPU") == {"train": 57, "val": 7, "test": 7}
    assert [one.id for one in images[:2]] == ["NWPU_0", "NWPU_1"]
    for one in images:
        facts = json.loads(one.facts)
        assert len(one.captions) == 5
        named = set().union(*(recognise(caption)["scene"] for caption in one.captions))
        assert named <= {facts["scene"]}


def test_drawn_world_is_the_same_for_the_same_seed() -> None:
    assert list(draw_world(40, 32, 1)) == list(draw_world(40, 32, 1))
    assert list(draw_world(40, 32, 1)) != list(draw_world(40, 32, 2))


def test_a_seeded_draw_of_a_folder(tmp_path: Path) -> None:
    for place in range(9):
        _image(tmp_path / f"{place}.jpg")
    _table(tmp_path, [["UCM", "train", f"{place}.jpg", *GOOD] for place in range(9)])
    drawn, again, whole = (read_folder(tmp_path, images, 1) for images in (4, 4, 20))
    ids = [one.id for one in drawn]
    assert ids == [one.id for one in again] == sorted(ids)
    assert (len(ids), drawn.total, whole.total) == (4, 4, 9)
    assert (drawn.rows, whole.rows, draw_world(40, 32, 1).rows) == (9, 9, 40)


def test_no_reader_that_runs_a_program_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostScript under a picture's name would be given to Ghostscript."""
    ran, program = tmp_path / "ran", tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    _table(tmp_path, [["UCM", "train", "a.jpg", *GOOD]])
    source = read_folder(tmp_path)
    assert list(source) == [] and not ran.exists()
    assert source.set_aside[0].reason.startswith("unreadable image: no JPEG, PNG")


def test_a_photograph_on_its_side_is_turned_upright(tmp_path: Path) -> None:
    """As `python -m captioning` would show it to the model."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (30, 20), "red").save(tmp_path / "b.jpg")
    _table(tmp_path, [["UCM", "train", name, *GOOD] for name in ("a.jpg", "b.jpg")])
    turned, upright = read_folder(tmp_path)
    assert Image.open(io.BytesIO(turned.image)).size == (20, 30)
    assert upright.image == (tmp_path / "b.jpg").read_bytes()
