"""Each form in which people have captioned images reads as the same images; other folders get one line."""

import json
import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from captioning.base.errors import UserError
from captioning.data.readers.folder.forms import NAMES, read_folder
from captioning.data.readers.names import SPLIT_WORDS, name_source
from captioning.data.readers.rows import SetAside
from captioning.images.table import write_parquet
from tests.helpers import owned_data
from tests.helpers.apart import import_apart
from tests.helpers.owned_data import FORMS, IMAGES, captions, jpeg, save, save_csv
from tests.helpers.project_copy import ROOT

CASES = ROOT.parent / "shared/cases"
each_form = pytest.mark.parametrize("write", FORMS.values(), ids=FORMS)
KEYS = st.sampled_from(["images", "filename", "raw", "sentences", "file_name", "id", "image_id", "caption", "x"])
Write = Callable[[Path], None]


def summary(folder: Path) -> list[tuple[str, str, str, bytes, list[str]]]:
    source = read_folder(folder)
    images = [(image.id, image.source, image.split, image.image, list(image.captions)) for image in source]
    assert source.set_aside == []
    assert (source.rows, source.total, source.captions) == (
        len(images),
        len(images),
        sum(len(row[4]) for row in images),
    )
    return sorted(images)


@each_form
def test_each_form_gives_the_same_images(write: Write, tmp_path: Path) -> None:
    write(tmp_path)
    expected = [(name[:-4], "DRAWN", split, jpeg(name), captions(name)) for _, name, split in IMAGES]
    assert summary(tmp_path) == sorted(expected)


@each_form
def test_hidden_and_system_files_are_passed_over(write: Write, tmp_path: Path) -> None:
    write(tmp_path)
    expected = summary(tmp_path)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        hidden = path.with_name(f"._{path.name}"), tmp_path / "__MACOSX" / path.relative_to(tmp_path)
        for copy in (
            *hidden,
            path.with_name("Thumbs.db"),
            path.with_name(".DS_Store"),
            path.parent / ".git" / path.name,
        ):
            save(copy, b"\x00\x05\x16\x07")
    assert summary(tmp_path) == expected


@each_form
def test_the_sample_is_drawn_and_its_ids_are_those_of_all(write: Write, tmp_path: Path) -> None:
    write(tmp_path)
    source = read_folder(tmp_path, 2, 3)
    ids = [image.id for image in source]
    assert len(ids) == source.total == 2 < source.rows == 4
    assert set(ids) <= {row[0] for row in summary(tmp_path)}
    assert ids == [image.id for image in read_folder(tmp_path, 2, 3)]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_an_image_folder_reads_as_datasets_reads_it(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = import_apart("datasets")
    owned_data.write_image_folder(tmp_path / "raw", ending)
    dataset = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "raw"), cache_dir=str(tmp_path / "cache"))
    rows = {
        (Path(row["image"]["path"]).name, {"validation": "val"}.get(split, split), row["text"])
        for split, part in dataset.items()
        for row in part.cast_column("image", datasets.Image(decode=False))
    }
    images = list(read_folder(tmp_path / "raw"))
    assert rows == {(image.path, image.split, text) for image in images for text in image.captions}


def test_splits_have_the_words_of_datasets() -> None:
    keywords = import_apart("datasets.data_files").SPLIT_KEYWORDS
    words = {str(split): set(words) for split, words in keywords.items()}
    words = {"train": words["train"] | {"restval"}, "val": words["validation"], "test": words["test"]}
    assert {split: set(names) for split, names in SPLIT_WORDS.items()} == words


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("RSICD/dataset_rsicd.json", "RSICD"),
        ("UCM_captions/dataset.json", "UCM"),
        ("dataset_nwpu.json", "nwpu"),
        ("annotations/captions_val2017.json", "root"),
        ("my port/train/metadata.csv", "my port"),
        ("captions.csv", "root"),
    ],
)
def test_a_source_is_named_by_its_folder_or_file(path: str, source: str) -> None:
    assert name_source(path, "root") == source


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        (["train/a.jpg", "Valid/b.jpg", "my_test/c.jpg"], ["train", "val", "test"]),
        (["train/a.jpg", "train/b.jpg", "train/c.jpg"], ["", "", ""]),
        (["train_1.jpg", "test_1.jpg", "c.jpg"], ["", "", ""]),
    ],
)
def test_without_a_column_the_folders_name_the_splits_if_they_name_several(
    files: list[str], splits: list[str], tmp_path: Path
) -> None:
    for name in files:
        save(tmp_path / name, jpeg(name))
    save_csv(tmp_path / "metadata.csv", [["file_name", "text"], *([name, "A port ."] for name in files)])
    assert [image.split for image in read_folder(tmp_path)] == splits


def test_the_same_name_from_two_sources_is_two_images(tmp_path: Path) -> None:
    """As in UCM and Sydney, whose images are 1.tif, 2.tif, ..."""
    images = (("", "1.jpg", "train"), ("", "2.jpg", "test"))
    for name in ("UCM", "Sydney"):
        owned_data.write_karpathy(tmp_path, name, images)
    rows = summary(tmp_path)
    assert [row[:3] for row in rows] == [
        (f"{name}/{name}_images/{number}", name, split)
        for name in ("Sydney", "UCM")
        for number, split in ((1, "train"), (2, "test"))
    ]
    assert len({row[3] for row in rows}) == 4, "an image was taken for another"


@pytest.mark.parametrize("names", [("UCM/1.jpg", "RSICD/1.jpg"), ("1.jpg", "1.jpg"), ("UCM\\1.jpg", "RSICD\\1.jpg")])
def test_a_table_names_images_in_folders_or_by_their_source(names: tuple[str, str], tmp_path: Path) -> None:
    for source in ("UCM", "RSICD"):
        save(tmp_path / "resized" / source / "1.jpg", jpeg(source))
    rows = [[source, "train", name, "A port ."] for source, name in zip(("UCM", "RSICD"), names, strict=True)]
    save_csv(tmp_path / "captions.csv", [["source", "split", "image", "caption_1"], *rows])
    expected = [(f"resized/{source}/1", source, "train", jpeg(source), ["A port ."]) for source in ("RSICD", "UCM")]
    assert summary(tmp_path) == expected


def test_rows_of_one_name_are_one_image_only_in_one_source_and_split(tmp_path: Path) -> None:
    """A caption of a test image never becomes one of a training image."""
    for source in ("UCM", "RSICD"):
        save(tmp_path / source / "1.jpg", jpeg(source))
    save(tmp_path / "2.jpg", jpeg("2"))
    rows = [["1.jpg", "UCM", "train", "A port ."], ["1.jpg", "RSICD", "test", "A lake ."]]
    rows += [["1.jpg", "UCM", "train", "A pier ."], ["2.jpg", "UCM", "train", "A hill ."]]
    rows += [["2.jpg", "UCM", "test", "A dune ."]]
    save_csv(tmp_path / "captions.csv", [["image", "source", "split", "caption"], *rows])
    source = read_folder(tmp_path)
    assert [(image.id, image.source, image.split, image.captions) for image in source] == [
        ("UCM/1", "UCM", "train", ("A port .", "A pier .")),
        ("RSICD/1", "RSICD", "test", ("A lake .",)),
        ("2", "UCM", "train", ("A hill .",)),
    ]
    assert SetAside(6, "2.jpg", "same image as line 5; leave one of the rows") in source.set_aside


def test_a_missing_image_is_not_replaced_by_one_of_another_source_or_class(tmp_path: Path) -> None:
    save(tmp_path / "csv/UCM/1.tif", jpeg("1"))
    rows = [["Sydney", "test", "1.tif", "A port ."], ["UCM", "train", "1.tif", "A lake ."]]
    save_csv(tmp_path / "csv/captions.csv", [["source", "split", "image", "caption_1"], *rows])
    assert [image.source for image in read_folder(tmp_path / "csv")] == ["UCM"]
    for name, images in ("UCM", (("", "1.jpg", "train"), ("", "2.jpg", "test"))), ("Sydney", (("", "1.jpg", "train"),)):
        owned_data.write_karpathy(tmp_path / "json", name, images)
    (tmp_path / "json/Sydney/Sydney_images/1.jpg").unlink()
    assert {image.source for image in read_folder(tmp_path / "json")} == {"UCM"}


def test_a_name_that_several_files_have_is_set_aside(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        save(tmp_path / folder / "1.jpg", jpeg(folder))
    save_csv(tmp_path / "captions.csv", [["image", "caption_1"], ["1.jpg", "A port ."], ["x/1.jpg", "A lake ."]])
    source = read_folder(tmp_path)
    assert [(image.id, image.captions) for image in source] == [("x/1", ("A lake .",))]
    reason = "2 files have its name; write it with its folder: x/1.jpg, y/1.jpg"
    assert SetAside(2, "1.jpg", reason) in source.set_aside


def test_accents_written_apart_are_the_same_name(tmp_path: Path) -> None:
    save(tmp_path / unicodedata.normalize("NFD", "ünë.jpg"), jpeg("x"))
    save_csv(tmp_path / "captions.csv", [["image", "caption_1"], ["ünë.jpg", "A port ."]])
    assert [row[4] for row in summary(tmp_path)] == [["A port ."]]


VALUES = st.recursive(
    st.none() | st.integers() | st.text() | st.just("a \ud800 port"),
    lambda values: st.lists(values) | st.dictionaries(KEYS, values),
)


@given(st.data())
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_of_any_content_is_read_or_refused_in_printable_lines(tmp_path: Path, data: st.DataObject) -> None:
    """A value anywhere in good JSON is replaced by another one."""
    write = data.draw(st.sampled_from([owned_data.write_karpathy, owned_data.write_nwpu, owned_data.write_coco]))
    shutil.rmtree(folder := tmp_path / "raw", ignore_errors=True)
    write(folder)
    path = data.draw(st.sampled_from(sorted(folder.rglob("*.json"))))
    content = json.loads(path.read_bytes())
    part, places = content, []
    while isinstance(part, dict | list) and part:
        key = data.draw(st.sampled_from(sorted(part) if isinstance(part, dict) else range(len(part))))
        places.append((part, key))
        part = part[key]
    part, key = data.draw(st.sampled_from(places))
    part[key] = data.draw(VALUES)
    path.write_text(json.dumps(content))
    try:
        source = read_folder(folder)
        write_parquet(source, tmp_path / "images.parquet")
    except UserError as error:
        assert all(line.isprintable() for line in str(error).split("\n"))
    else:
        assert all(aside.reason.isprintable() for aside in source.set_aside)


def test_any_number_of_references_unequal_ones_too(tmp_path: Path) -> None:
    lines = []
    for number in range(1, 21):
        save(tmp_path / f"{number}.jpg", jpeg(str(number)))
        lines.append({"file_name": f"{number}.jpg", "captions": [f"This is port {k} ." for k in range(number)]})
    save(tmp_path / "metadata.jsonl", "\n".join(map(json.dumps, lines)))
    assert [len(image.captions) for image in read_folder(tmp_path)] == list(range(1, 21))


def test_files_of_another_form_are_named_as_not_read(tmp_path: Path) -> None:
    owned_data.write_risc(tmp_path)
    expected = summary(tmp_path)
    assert read_folder(tmp_path).description.endswith(": captions.csv (RISC): captions.csv")
    owned_data.write_karpathy(tmp_path, "UCM", (("", "1.jpg", "train"),))
    (tmp_path / "UCM/UCM_images/1.jpg").unlink()
    assert summary(tmp_path) == expected
    assert read_folder(tmp_path).description.endswith("; not read, since this comes first: UCM/dataset_ucm.json")
    save(tmp_path / "UCM/dataset_ucm.json", "{")
    assert summary(tmp_path) == expected, "a damaged file that is not read"


UNKNOWN = [
    ({}, "holds no file"),
    ({"a.jpg": b"", "b.tif": b""}, "holds 2 images"),
    ({"notes.csv": "place,words\nx,y\n"}, "holds 1 .csv: notes.csv has the columns place, words"),
    ({"boxes.json": {"info": {}, "images": [{"id": 1}]}}, "holds 1 .json: boxes.json has the keys info, images"),
    ({"list.json": [{"picture": "a.jpg", "words": "A port ."}]}, "list.json is a list of picture, words"),
    ({"RISCM.zip": b""}, "holds 1 .zip; set data.source to `archive` for RISCM.zip"),
    ({"train.csv": "filename,captions,image\na.jpg,x,\"{'bytes': b'\\xff'}\"\n"}, "its images are bytes as text"),
]


@pytest.mark.parametrize(("files", "found"), UNKNOWN, ids=[found for _, found in UNKNOWN])
def test_an_unknown_folder_gets_one_line_with_its_content_and_what_is_read(
    files: dict[str, bytes], found: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        save(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}: no captions that are read; it ") and found in line and line.isprintable()
    assert all(name in line for name in NAMES)


SENTENCES = [{"raw": "A port ."}]
COCO = {"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]}
FAULTY = [
    ("x.json", "{", "x.json: not JSON, or incomplete; fetch it again"),
    (
        "x.json",
        '{"image": "a.jpg"}\n{"image": "b.jpg"}\n',
        "x.json: this is JSON Lines, an object a line; name it x.jsonl",
    ),
    (
        "metadata.jsonl",
        '{"file_name": "a.jpg", "text": "A port .", "split": 0}',
        "metadata.jsonl:1: split 0; use train",
    ),
    (
        "x.json",
        {"images": [{"filename": "a.jpg", "sentences": SENTENCES}, {"filename": 3, "sentences": [{}]}]},
        "x.json: images[1].filename: 3: Input should be a valid string",
    ),
    (
        "x.json",
        {"images": [{"filename": "a.jpg", "sentences": SENTENCES, "split": "night"}]},
        "x.json: images[0].split: 'night': Value error, use train, val, test or leave it empty",
    ),
    (
        "x.json",
        {"port": [{"filename": "a.jpg", "raw": None}]},
        "x.json: port[0].raw: None: Input should be a valid string",
    ),
    (
        "x.json",
        COCO | {"annotations": [{"image_id": 9, "caption": "A port ."}]},
        "x.json: annotations[0].image_id: '9': no image has this id",
    ),
    (
        "metadata.jsonl",
        '{"file_name": "a.jpg", "text": "x"}\n{"file_name"',
        "metadata.jsonl:2: b'{\"file_name\"' is not",
    ),
    ("metadata.jsonl", '{"text": "x"}', "metadata.jsonl:1: no column image; the header must hold file_name"),
    ("metadata.jsonl", '{"file_name": "a.jpg", "text": 3}', "metadata.jsonl:1: 'a.jpg' has a caption 3; write text"),
    ("metadata.csv", "file_name,words\na.jpg,x\n", "metadata.csv:1: no column caption_1; the header must hold"),
    ("metadata.parquet", b"PAR1", "metadata.parquet: damaged, or not a Parquet file"),
]


@pytest.mark.parametrize(("name", "content", "fault"), FAULTY, ids=[fault for _, _, fault in FAULTY])
def test_a_faulty_file_of_a_form_gets_one_line_with_file_key_and_value(
    name: str, content: bytes | str | dict, fault: str, tmp_path: Path
) -> None:
    save(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        read_folder(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/{fault}")
    assert all(line.isprintable() for line in str(caught.value).split("\n"))


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
@pytest.mark.parametrize("name", ["coco", "hub_rsicd", "imagefolder_jsonl", "karpathy", "nwpu"])
def test_data_sets_as_people_have_them_are_read(name: str) -> None:
    source = read_folder(CASES / name)
    images = list(source)
    assert len(images) >= 3 and len(images) + len(source.set_aside) == source.rows
    assert all(not text.startswith("[") for image in images for text in image.captions)
