"""The JSON of data sets in its variants: the same images, or one line with file, key and remedy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from captioning.base.errors import UserError
from captioning.data.readers.folder.forms import find_form, read_folder
from tests.helpers import owned_data
from tests.helpers.owned_data import jpeg, save, save_csv


def refusal(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        list(read_folder(folder))
    return str(caught.value)


def write_coco(folder: Path, splits: list[str]) -> None:
    names = [f"{number}.jpg" for number in range(len(splits))]
    for name in names:
        save(folder / name, jpeg(name))
    images = [{"id": k, "file_name": name, "split": splits[k]} for k, name in enumerate(names)]
    texts = [{"image_id": k, "caption": "A port ."} for k in range(len(splits))]
    save(folder / "captions.json", {"images": images, "annotations": texts})


def test_coco_states_the_split_of_each_image(tmp_path: Path) -> None:
    write_coco(tmp_path, ["train", "Validation", "test", ""])
    assert [image.split for image in read_folder(tmp_path)] == ["train", "val", "test", ""]


@pytest.mark.parametrize(("key", "written"), [("id", '"1"'), ("id", "1.0"), ("image_id", '"1"'), ("image_id", "1.0")])
def test_numbers_of_images_in_coco_may_be_text_or_floats(key: str, written: str, tmp_path: Path) -> None:
    write_coco(tmp_path, ["train", "test"])
    path = tmp_path / "captions.json"
    path.write_text(path.read_text().replace(f'"{key}": 1', f'"{key}": {written}'))
    assert [image.captions for image in read_folder(tmp_path)] == [("A port .",), ("A port .",)]


@pytest.mark.parametrize("written", ["NaN", "null", "true", "1.5", "[1]"])
def test_other_numbers_of_images_are_refused(written: str, tmp_path: Path) -> None:
    write_coco(tmp_path, ["train", "test"])
    path = tmp_path / "captions.json"
    path.write_text(path.read_text().replace('"image_id": 1', f'"image_id": {written}'))
    assert "annotations[1].image_id: " in (text := refusal(tmp_path)) and "write a number or text" in text


def test_an_unknown_split_in_coco_is_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, ["train", "night"])
    fault = "images[1].split: 'night': Value error, use train, val, test or leave it empty; correct it"
    assert refusal(tmp_path).startswith(f"{tmp_path}/captions.json: {fault}")


def write_nwpu(folder: Path, keys: list[str]) -> None:
    save(folder / "a.jpg", jpeg("a"))
    captions = {key: f"This is port {number} ." for number, key in enumerate(keys)}
    save(folder / "dataset.json", {"port": [{"filename": "a.jpg", "split": "train", "raw": "A port ."} | captions]})


@pytest.mark.parametrize("keys", [["raw_1", "raw_2"], ["raw1", "raw2"], ["raw 1", "raw 2"]])
def test_the_numbered_captions_of_nwpu_are_read(keys: list[str], tmp_path: Path) -> None:
    write_nwpu(tmp_path, keys)
    (image,) = read_folder(tmp_path)
    assert image.captions == ("A port .", "This is port 0 .", "This is port 1 .")


def test_an_unknown_key_of_captions_in_nwpu_is_refused(tmp_path: Path) -> None:
    write_nwpu(tmp_path, ["raw_1", "raw_b"])
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}/dataset.json: port[0]: ") and "key 'raw_b' is unknown" in message


@pytest.mark.parametrize(
    "further", [["caption", "caption_a", "caption_b"], ["caption", "caption.1"], ["text", "text_2"], ["text", "text 2"]]
)
def test_further_captions_under_unknown_names_are_refused(further: list[str], tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", jpeg("a"))
    save_csv(tmp_path / "captions.csv", [["image", *further], ["a.jpg", *["A port ."] * len(further)]])
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}/captions.csv:1: no column caption_1;") and further[-1] in message


@pytest.mark.parametrize("column", ["caption_id", "caption_number", "captions_url", "text_length"])
def test_columns_about_captions_are_passed_over(column: str, tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", jpeg("a"))
    save_csv(tmp_path / "captions.csv", [["image", "caption", column], ["a.jpg", "A port .", "7"]])
    assert [image.captions for image in read_folder(tmp_path)] == [("A port .",)]


@pytest.mark.parametrize("write", [owned_data.write_karpathy, owned_data.write_nwpu, owned_data.write_coco])
def test_damaged_json_beside_json_is_refused_before_any_work(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    save(tmp_path / "UCM/dataset_ucm.json", json.dumps({"images": []})[:-1])
    fault = "not JSON, or incomplete; fetch it again, or move it elsewhere: it may be another data set"
    assert refusal(tmp_path) == f"{tmp_path}/UCM/dataset_ucm.json: {fault}"
    with pytest.raises(UserError, match="move it elsewhere"):
        find_form(tmp_path)
