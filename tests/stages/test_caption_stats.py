"""What checkpoints are pre-trained on comes from the training split alone, and only where the images are not drawn."""

import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from captioning.data.tags import MINIMUM_IMAGES, read_tagged, read_words
from captioning.images.table import CaptionedImage, write_parquet
from stages import caption_stats

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "validation", "test")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder with images in three splits; each split has a word of its own."""
    names = [f"{split}_{number}" for split in SPLITS for number in range(MINIMUM_IMAGES)]
    images = [
        CaptionedImage(
            name, "MINE", "", name.encode(), f"{name}.png", (f"a harbour with {name.partition('_')[0]}words .",)
        )
        for name in names
    ]
    write_parquet(images, tmp_path / "data/captions/images.parquet")
    for split in SPLITS:
        path = tmp_path / f"data/splits/{split}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in names if name.startswith(split)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def set_source(source: str) -> None:
    yaml = YAML(typ="safe")
    params = yaml.load(ROOT / "params.yaml")
    params["profiles"]["miniature"]["data"]["source"] = source
    yaml.dump(params, Path("params.yaml"))


def test_nothing_of_validation_or_test_reaches_pretraining(project: Path) -> None:
    set_source("folder")
    caption_stats.main()
    tagged = read_tagged(Path("data/tags/images.parquet"))
    assert [image.id for image in tagged] == [f"train_{number}" for number in range(MINIMUM_IMAGES)]
    assert [image.image for image in tagged] == [image.id.encode() for image in tagged]
    assert {tuple(image.words) for image in tagged} == {("harbour", "trainwords")}
    assert read_words(Path("data/words.txt")) == dict.fromkeys([".", "a", "harbour", "trainwords", "with"], 10)


def test_drawn_images_have_no_tags(project: Path) -> None:
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    caption_stats.main()
    assert read_tagged(Path("data/tags/images.parquet")) == []
