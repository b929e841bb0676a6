"""Folders as people have them: several data sets unpacked in one, incomplete entries, other capitals, stray files."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioning.base.errors import UserError
from captioning.data.readers.folder.forms import read_folder
from captioning.data.readers.rows import SetAside, Source
from tests.helpers.owned_data import jpeg, save, save_csv

SENTENCES = [{"raw": "A port ."}]
ENTRY = {"filename": "1.jpg", "split": "train", "sentences": SENTENCES}


def read(folder: Path) -> tuple[dict[str, tuple[str, bytes, tuple[str, ...]]], Source]:
    """Return the split, the bytes and the captions of each image."""
    source = read_folder(folder)
    return {image.id: (image.split, image.image, image.captions) for image in source}, source


def karpathy(name: str, *entries: dict) -> dict:
    return {"dataset": name, "images": list(entries)}


@pytest.mark.parametrize("folders", [("UCM_images", "Sydney_images"), ("ucm/imgs", "Sydney_captions/imgs")])
def test_three_data_sets_unpacked_in_one_folder_each_have_their_images(
    folders: tuple[str, str], tmp_path: Path
) -> None:
    for folder in folders:
        save(tmp_path / folder / "1.jpg", jpeg(folder))
    save(tmp_path / "RSICD_images/port_1.jpg", jpeg("port"))
    save(tmp_path / "dataset_ucm.json", karpathy("UCM_captions", ENTRY))
    save(tmp_path / "dataset_sydney.json", {"images": [ENTRY | {"split": "test"}]})
    save(tmp_path / "dataset_rsicd.json", karpathy("rsicd", ENTRY | {"filename": "port_1.jpg"}))
    source = read_folder(tmp_path)
    expected = {"UCM_captions": jpeg(folders[0]), "sydney": jpeg(folders[1]), "rsicd": jpeg("port")}
    assert {image.source: image.image for image in source} == expected
    assert source.set_aside == []


@pytest.mark.parametrize("names", [("ucm", "sydney"), ("ucm",)])
def test_images_of_another_data_set_are_not_taken_for_missing_ones(names: tuple[str, ...], tmp_path: Path) -> None:
    save(tmp_path / "Sydney_images/1.jpg", jpeg("Sydney"))
    for name in names:
        save(tmp_path / f"dataset_{name}.json", karpathy(name, ENTRY))
    source = read_folder(tmp_path)
    assert [image.source for image in source] == list(names[1:])
    aside = source.set_aside[-1]
    assert aside.reason.startswith("no such file, except one of another source or class (Sydney_images/1.jpg)")


def test_images_in_folders_without_the_name_of_a_data_set_are_refused_with_both(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        save(tmp_path / folder / "1.jpg", jpeg(folder))
    save(tmp_path / "dataset_ucm.json", karpathy("ucm", ENTRY))
    images, source = read(tmp_path)
    assert images == {}
    reason = "2 files have its name; write it with its folder: first/1.jpg, second/1.jpg"
    assert SetAside(1, "1.jpg", reason) in source.set_aside


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("dataset.json", {"images": [{"filename": "0.jpg"}, ENTRY]}),
        ("dataset.json", {"images": [{"filename": "0.jpg", "sentences": []}, ENTRY]}),
        ("dataset.json", {"lake": [], "port": [{"filename": "1.jpg", "raw": "A port .", "split": "train"}]}),
    ],
)
def test_a_form_is_recognised_although_its_first_entry_is_empty(file: str, content: dict, tmp_path: Path) -> None:
    save(tmp_path / file, content)
    for name in ("0.jpg", "1.jpg"):
        save(tmp_path / name, jpeg(name))
    assert read(tmp_path)[0] == {"1": ("train", jpeg("1.jpg"), ("A port .",))}


def test_the_folders_of_images_that_are_found_name_the_splits(tmp_path: Path) -> None:
    splits = {"a.jpg": "train", "b.jpg": "val", "c.jpg": "test"}
    for name, split in splits.items():
        save(tmp_path / "images" / split / name, jpeg(name))
    save_csv(tmp_path / "captions.csv", [["image", "caption_1"], *([name, "A port ."] for name in splits)])
    assert {id_: image[0] for id_, image in read(tmp_path)[0].items()} == {"a": "train", "b": "val", "c": "test"}


def test_a_file_of_annotations_names_the_split_before_the_folders_of_images(tmp_path: Path) -> None:
    """As Karpathy's test images of COCO, which are in the folder of COCO's validation images."""
    for name, split in {"1.jpg": "train", "2.jpg": "val"}.items():
        save(tmp_path / f"{split}2014" / name, jpeg(name))
    for number, split in enumerate(("train", "test"), start=1):
        caption = {"image_id": number, "caption": "A port ."}
        content = {"images": [{"id": number, "file_name": f"{number}.jpg"}], "annotations": [caption]}
        save(tmp_path / f"coco_{split}.json", content)
    assert {id_: image[0] for id_, image in read(tmp_path)[0].items()} == {"1": "train", "2": "test"}


def test_several_rows_of_an_image_are_its_captions_also_in_numbered_columns(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg"):
        save(tmp_path / name, jpeg(name))
    save_csv(
        tmp_path / "captions.csv",
        [
            ["image", "caption_1"],
            *([f"{k}.jpg", text] for text in ("A port .", "A lake .", "A port .") for k in (1, 2)),
        ],
    )
    images, source = read(tmp_path)
    assert [image[2] for image in images.values()] == [("A port .", "A lake .", "A port .")] * 2
    assert (source.rows, source.set_aside) == (2, [])


def test_a_row_of_several_columns_that_repeats_a_caption_is_a_copy(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", jpeg("1"))
    rows = [["A port .", "A lake ."], ["A pier .", ""], ["A hill .", ""], ["A lake .", "A dune ."]]
    save_csv(tmp_path / "captions.csv", [["image", "caption_1", "caption_2"], *(["1.jpg", *row] for row in rows)])
    images, source = read(tmp_path)
    assert images["1"][2] == ("A port .", "A lake .", "A pier .", "A hill .")
    assert source.set_aside == [SetAside(5, "1.jpg", "same image as line 2; leave one of the rows")]


def test_the_ending_of_metadata_may_be_in_capitals(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", jpeg("1"))
    pq.write_table(pa.Table.from_pylist([{"file_name": "1.jpg", "text": "A port ."}]), tmp_path / "metadata.PARQUET")
    assert read(tmp_path)[0] == {"1": ("", jpeg("1"), ("A port .",))}


@pytest.mark.parametrize("written", ["1.JPG", "TRAIN/1.jpg", "Train\\1.Jpg"])
def test_a_name_in_other_capitals_is_found(written: str, tmp_path: Path) -> None:
    save(tmp_path / "train/1.jpg", jpeg("1"))
    save_csv(tmp_path / "captions.csv", [["image", "caption_1"], [written, "A port ."]])
    assert read(tmp_path)[0] == {"1": ("", jpeg("1"), ("A port .",))}


def test_the_file_with_the_same_capitals_counts_and_without_one_both_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "A.jpg"):
        save(tmp_path / name, jpeg(name))
    save_csv(tmp_path / "captions.csv", [["image", "caption_1"], ["A.jpg", "A port ."], ["a.JPG", "A lake ."]])
    images, source = read(tmp_path)
    assert images == {"A": ("", jpeg("A.jpg"), ("A port .",))}
    reason = "2 files have its name; write it with its folder: A.jpg, a.jpg"
    assert SetAside(3, "a.JPG", reason) in source.set_aside


TABLES = [(table, stray) for table in ("captions.csv", "train.csv") for stray in ("notes.json", "a.json", "old.csv")]


@pytest.mark.parametrize(("form", "stray"), [*TABLES, ("dataset.json", "old.csv")])  # JSON beside it is refused
def test_a_damaged_file_beside_others_is_passed_over_and_named(form: str, stray: str, tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", jpeg("1"))
    is_json = form.endswith(".json")
    save(tmp_path / form, {"images": [ENTRY]} if is_json else "image,caption_1,split\n1.jpg,A port .,train\n")
    save(tmp_path / stray, "{" if stray.endswith(".json") else 'place,words\n"')
    images, source = read(tmp_path)
    assert images == {"1": ("train", jpeg("1"), ("A port .",))}
    assert f"; passed over: {tmp_path / stray}" in source.description


def test_a_damaged_file_alone_gets_its_line(tmp_path: Path) -> None:
    save(tmp_path / "dataset.json", json.dumps({"images": [ENTRY]})[:-3])
    with pytest.raises(UserError, match=r"dataset\.json: not JSON, or incomplete; fetch it again$"):
        read(tmp_path)


def test_metadata_of_something_else_is_not_read_beside_a_form(tmp_path: Path) -> None:
    save(tmp_path / "1.jpg", jpeg("1"))
    save(tmp_path / "dataset.json", {"images": [ENTRY]})
    save(tmp_path / "metadata.csv", "id,place\n1,Ankara\n")
    images, source = read(tmp_path)
    assert images == {"1": ("train", jpeg("1"), ("A port .",))}
    assert source.description.endswith(": dataset.json; not read, since this comes first: metadata.csv")
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"metadata\.csv:1: no column image, caption_1"):
        read(tmp_path)
