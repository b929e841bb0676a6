"""Encoded images have the tower's features, in memory or in a file, with any batch size."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pytest import MonkeyPatch

from captioning.base.errors import UserError
from captioning.paligemma.model import image_features, prompt_inputs
from captioning.scst import features
from captioning.scst.features import encode_images
from captioning.training import mapped
from tests.helpers.sampled_captions import PROMPT


@pytest.mark.parametrize("batch", [1, 3, 9])
@pytest.mark.parametrize("max_ram_bytes", [2**30, 0])
def test_features_are_those_of_the_tower(
    quantised: Any, processor: Any, pictures: list[bytes], batch: int, max_ram_bytes: int, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "features"
    encoded = encode_images(quantised, processor, pictures, batch, file, max_ram_bytes)
    pixel_values = prompt_inputs(processor, pictures, PROMPT)["pixel_values"]
    expected = image_features(quantised, pixel_values).pooler_output
    torch.testing.assert_close(encoded, expected, rtol=1e-5, atol=1e-5)
    assert not encoded.requires_grad
    assert file.exists() == (max_ram_bytes == 0)
    if file.exists():
        assert file.stat().st_size == encoded.nbytes
        assert torch.equal(torch.from_file(str(file), size=encoded.numel()).view_as(encoded), encoded)


@pytest.mark.parametrize("is_damaged", [False, True])
def test_an_interrupted_run_encodes_the_missing_batches(
    quantised: Any, processor: Any, pictures: list[bytes], is_damaged: bool, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    """The first run ends in its third of four batches; perhaps its second never reached the disk."""
    images, file, calls = (pictures * 3)[:8], tmp_path / "features", list[int]()
    limit = 2

    def encode(model: Any, pixel_values: Any) -> Any:
        if len(calls) == limit:
            raise KeyboardInterrupt
        calls.append(len(pixel_values))
        return image_features(model, pixel_values)

    monkeypatch.setattr(features, "image_features", encode)
    with pytest.raises(KeyboardInterrupt):
        encode_images(quantised, processor, images, 2, file, max_ram_bytes=0)
    if is_damaged:
        content = bytearray(file.read_bytes())
        content[3 * len(content) // 8] ^= 1
        file.write_bytes(content)
    calls.clear()
    limit = 9
    encoded = encode_images(quantised, processor, images, 2, file, max_ram_bytes=0)
    assert len(calls) == 2 + is_damaged
    assert torch.equal(encoded, encode_images(quantised, processor, images, 2, tmp_path / "undisturbed"))


def test_too_small_a_disk_is_reported_before_any_work(
    quantised: Any, processor: Any, pictures: list[bytes], tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "disk_usage", lambda _: shutil.disk_usage("/")._replace(free=1000))
    with pytest.raises(UserError, match=r"the disk has 0\.0 GB free"):
        encode_images(quantised, processor, pictures, 2, tmp_path / "features", max_ram_bytes=0)
    assert list(tmp_path.iterdir()) == []
