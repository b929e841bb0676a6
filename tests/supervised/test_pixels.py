"""Pictures decoded ahead are what the library's processor makes of them in every step."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.tutorial import Collator
from captioning.supervised.pixels import DecodedCollator, decode_images, normalise

PROMPT = "caption en"


@pytest.fixture
def odd_pictures() -> list[bytes]:
    """A gradient of another size and shape, a grey one and one with a palette, as PNG and JPEG."""
    gradient = Image.linear_gradient("L")
    colours = Image.merge("RGB", [gradient, gradient.rotate(90), gradient.rotate(180)])
    made = [colours.resize((61, 40)), gradient.resize((24, 24)), colours.quantize(16).resize((24, 30))]
    files = []
    for picture, kind in zip(made, ("JPEG", "PNG", "PNG"), strict=True):
        file = io.BytesIO()
        picture.save(file, kind)
        files.append(file.getvalue())
    return files


@pytest.mark.parametrize("in_memory", [0, 2**20])
def test_a_batch_is_the_processors(
    processor: Any, pictures: list[bytes], odd_pictures: list[bytes], captions: list[list[str]], in_memory: int,
    tmp_path: Path,
) -> None:  # fmt: skip
    images = [*odd_pictures, pictures[0]]
    decoded = decode_images(processor, images, tmp_path / "x.pixels", in_memory)
    assert (tmp_path / "x.pixels").exists() == (in_memory == 0)
    rows = [{"prompt": PROMPT, "caption": own[0]} for own in captions]
    theirs = Collator(processor)([row | {"image": image} for row, image in zip(rows, images, strict=True)])
    ours = DecodedCollator(processor)([row | {"image": image} for row, image in zip(rows, decoded, strict=True)])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key != "pixel_values")
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], rtol=0, atol=1e-6)
    assert ours["pixel_values"].std() > 0.3


def test_black_and_white_by_hand(processor: Any) -> None:
    pixels = torch.tensor([0, 255, 102], dtype=torch.uint8).expand(1, 3, 1, 3)
    assert normalise(processor, pixels)[0, 0, 0].tolist() == pytest.approx([-1, 1, -0.2], abs=1e-6)
