"""A folder's table is checked first; unusable rows are set aside with a reason; the drawn world keeps proportions."""

import csv
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from captioning.base.errors import UserError
from captioning.data.readers.captions_csv import COLUMNS
from captioning.data.readers.drawn import draw_world
from captioning.data.readers.folder.forms import read_folder
from captioning.data.readers.names import Unusable, check_path
from captioning.data.readers.rows import SetAside
from captioning.data.sources import open_source
from captioning.data.world.captions import recognise

CAPTIONS = ["A port .", "Boats in a port .", "There is a port .", "It is a port .", "A port with boats ."]


OUTSIDE = "its name is absolute or an address or holds ..; write it as a path within the data set"


def save_image(path: Path, kind: str = "JPEG") -> bytes:
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(path, kind)
    return path.read_bytes()


def write_table(path: Path, rows: list[list[str]]) -> None:
    with (path / "captions.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def test_images_behind_a_link_are_refused_where_dvc_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere nobody expects DVC to see them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "large").mkdir()
    for folder in ("data/raw", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "resized").symlink_to(tmp_path / "large")
        write_table(tmp_path / folder, [["UCM", "val", "a.jpg", *CAPTIONS]])
    save_image(tmp_path / "large/a.jpg")
    data = dict(source="folder", images=0, seed=1, declared=None, columns=None, bands=None)
    with pytest.raises(UserError, match=r"data/raw/resized is a link .* data\.path"):
        open_source(SimpleNamespace(path="data/raw", **data))
    assert open_source(SimpleNamespace(path="elsewhere", **data)).rows == 1


def test_bytes_stay_and_captions_are_cleaned(tmp_path: Path) -> None:
    jpeg, png = save_image(tmp_path / "resized/a.jpg"), save_image(tmp_path / "b.png", kind="PNG")
    write_table(tmp_path, [[" UCM ", " val ", "a.jpg", "A\u00a0port", *CAPTIONS[1:]], ["UCM", " ", "b.png", *CAPTIONS]])
    source = read_folder(tmp_path)
    first, second = source
    assert (first.id, first.source, first.split, first.path, first.facts) == ("a", "UCM", "val", "a.jpg", "")
    assert first.captions == tuple(CAPTIONS) and second.split == ""
    assert (first.image, second.image) == (jpeg, png)
    assert source.fired_rules == {"unusual spaces made plain": 1, "final period added": 1}
    assert source.set_aside == []


def test_unusable_rows_and_captions_are_set_aside_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(save_image(tmp_path / "a.jpg")[:300])
    (tmp_path / "b.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    save_image(tmp_path.parent / "outside.jpg")
    rows = [
        ["missing.jpg", *CAPTIONS],
        ["broken.jpg", *CAPTIONS],
        ["../outside.jpg", *CAPTIONS],
        ["..", *CAPTIONS],
        ["a.jpg", " .", "1 .", *CAPTIONS[2:]],
        ["a.jpg", *CAPTIONS],
        ["b.jpg", *[" ."] * 5],
    ]
    write_table(tmp_path, [["UCM", "train", *row] for row in rows])
    source = read_folder(tmp_path)
    (image,) = source
    assert image.captions == tuple(CAPTIONS[2:])
    assert source.set_aside[:7] == [
        SetAside(2, "missing.jpg", "no such file"),
        SetAside(3, "broken.jpg", "unreadable image: broken or truncated: Truncated File Read"),
        SetAside(4, "../outside.jpg", OUTSIDE),
        SetAside(5, "..", OUTSIDE),
        SetAside(6, "a.jpg", "caption_1 is nearly empty: '.'"),
        SetAside(6, "a.jpg", "caption_2 is nearly empty: '1 .'"),
        SetAside(7, "a.jpg", "same image as line 6; leave one of the rows"),
    ]
    assert len(source.set_aside) == 7 + 6
    assert source.set_aside[-1] == SetAside(8, "b.jpg", "no usable caption; every image needs one")


def test_a_name_has_at_most_255_bytes() -> None:
    assert check_path("a" * 251 + ".jpg")
    for name in ("Screenshot at 3.04.05\u202fPM.jpg", "a\u00a0b.jpg", "\U0001f468\u200d\U0001f33e.jpg"):
        assert check_path(name) == name
    for name in ("/data/a.jpg", "\\\\server\\a.jpg", "D:/a.jpg", "..\\a.jpg", "sub/../a.jpg", "https://x.org/a.jpg"):
        with pytest.raises(Unusable, match="within the data set"):
            check_path(name)
    with pytest.raises(Unusable, match="longer than 255 bytes"):
        check_path("é" * 126 + ".jpg")


def test_a_table_is_refused_with_all_its_faults(tmp_path: Path) -> None:
    write_table(
        tmp_path, [["UCM", "night", "a.jpg", *CAPTIONS], ["", "train", "b.jpg", *CAPTIONS], ["UCM", "train", "c"]]
    )
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path)
    faults = ("2: split 'night'; use train, val, test", "3: 'b.jpg' has no source", "4: 'c' has too few")
    assert all(f"captions.csv:{fault}" in str(caught.value) for fault in faults)


def test_the_drawn_world_keeps_proportions_and_facts() -> None:
    source = draw_world(100, 32, seed=1)
    images = list(source)
    assert (source.total, source.rows, source.captions) == (100, 100, 500)
    assert Counter(image.source for image in images) == {"NWPU": 71, "RSICD": 24, "UCM": 5}
    assert Counter(image.split for image in images if image.source == "NWPU") == {"train": 57, "val": 7, "test": 7}
    assert [image.id for image in images[:2]] == ["NWPU_0", "NWPU_1"]
    for image in images:
        names = set().union(*(recognise(caption)["scene"] for caption in image.captions))
        assert len(image.captions) == 5 and names <= {json.loads(image.facts)["scene"]}
    assert images == list(draw_world(100, 32, seed=1)) != list(draw_world(100, 32, seed=2))


def test_no_reader_that_runs_a_program_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would give PostScript to Ghostscript."""
    trace, program = tmp_path / "trace", tmp_path / "bin/gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    write_table(tmp_path, [["UCM", "train", "a.jpg", *CAPTIONS]])
    source = read_folder(tmp_path)
    assert list(source) == [] and not trace.exists()
    assert source.set_aside[0].reason.startswith("unreadable image: ")
