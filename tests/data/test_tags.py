"""Tags are the frequent content words of the training captions, and nothing of another split reaches them."""

from pathlib import Path

import pytest

from captioning.data.tags import (
    MINIMUM_IMAGES,
    TaggedImage,
    count_tags,
    read_tagged,
    read_words,
    write_tagged,
    write_words,
)


def test_tags_are_the_shares_of_captions_that_hold_a_frequent_content_word() -> None:
    tokens = {str(image): ["the red plane is near a plane", "a plane"] for image in range(MINIMUM_IMAGES)}
    tokens["other"] = ["a red car", "the yellow car"]
    tags = count_tags(tokens, {"the", "a", "is"})
    assert tags["0"] == {"plane": 1.0, "near": 0.5, "red": 0.5}
    assert list(tags["0"]) == ["plane", "near", "red"]  # "red" is also elsewhere
    assert tags["other"] == {"red": 0.5}  # too few images have a car


@pytest.mark.parametrize(
    "images", [[TaggedImage("a", b"\x89PNG", ["plane"], [0.4]), TaggedImage("b", b"", [], [])], []]
)
def test_tagged_images_survive_their_file(tmp_path: Path, images: list[TaggedImage]) -> None:
    write_tagged(images, tmp_path / "images.parquet")
    assert read_tagged(tmp_path / "images.parquet") == images


@pytest.mark.parametrize("captions", [["a b", "b ."], []])
def test_words_survive_their_file(tmp_path: Path, captions: list[str]) -> None:
    write_words(tmp_path / "words.txt", captions)
    assert read_words(tmp_path / "words.txt") == ({"a": 1, "b": 2, ".": 1} if captions else {})
