"""Images decoded before training equal what the library's processor makes in every step."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from benchmarks.tutorial import Collator
from captioning.training.pixels import DecodedCollator, decode_images, normalise


def odd_images() -> list[bytes]:
    """Return a gradient of another size and shape, a grey image and one with a palette, as JPEG and PNG."""
    gradient = Image.linear_gradient("L")
    colours = Image.merge("RGB", [gradient, gradient.rotate(90), gradient.rotate(180)])
    images = [colours.resize((61, 40)), gradient.resize((24, 24)), colours.quantize(16).resize((24, 30))]
    files = [io.BytesIO() for _ in images]
    for image, file, kind in zip(images, files, ("JPEG", "PNG", "PNG"), strict=True):
        image.save(file, kind)
    return [file.getvalue() for file in files]


@pytest.mark.parametrize("max_ram_bytes", [0, 2**20])
def test_batch_equals_the_processors(
    processor: Any, pictures: list[bytes], captions: list[list[str]], max_ram_bytes: int, tmp_path: Path
) -> None:
    images = [*odd_images(), pictures[0]]
    decoded = decode_images(processor, images, tmp_path / "x.pixels", max_ram_bytes)
    assert (tmp_path / "x.pixels").exists() == (max_ram_bytes == 0)
    rows = [{"prompt": "caption en", "caption": texts[0]} for texts in captions]
    expected = Collator(processor)([row | {"image": image} for row, image in zip(rows, images, strict=True)])
    batch = DecodedCollator(processor)([row | {"image": image} for row, image in zip(rows, decoded, strict=True)])
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[key], expected[key]) for key in batch if key != "pixel_values")
    torch.testing.assert_close(batch["pixel_values"], expected["pixel_values"], rtol=0, atol=1e-6)
    assert batch["pixel_values"].std() > 0.3


def test_normalised_black_and_white_by_hand(processor: Any) -> None:
    pixels = torch.tensor([0, 255, 102], dtype=torch.uint8).expand(1, 3, 1, 3)
    assert normalise(processor, pixels)[0, 0, 0].tolist() == pytest.approx([-1, 1, -0.2], abs=1e-6)
