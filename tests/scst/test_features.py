"""Features encoded once: in memory or in a file, in whatever batches, what the tower gives."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from captioning.base.errors import UserError
from captioning.paligemma.model import image_features, prompt_inputs
from captioning.scst import features
from captioning.scst.features import EncodedImages, collate, encode_images
from captioning.training import mapped

PROMPT = "caption en"


@pytest.mark.parametrize("batch", [1, 3, 9])
@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_features_are_those_of_the_tower(
    quantised: Any, processor: Any, pictures: list[bytes], batch: int, in_memory: int, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "features"
    ours = encode_images(quantised, processor, pictures, batch, file, in_memory)
    pixel_values = prompt_inputs(processor, pictures, PROMPT)["pixel_values"]
    expected = image_features(quantised, pixel_values).pooler_output
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert not ours.requires_grad
    assert file.exists() == (in_memory == 0)
    if in_memory == 0:
        assert file.stat().st_size == ours.numel() * ours.itemsize
        assert torch.equal(torch.from_file(str(file), size=ours.numel(), dtype=ours.dtype).view_as(ours), ours)


@pytest.mark.parametrize("spoilt", [0, 1])
def test_an_interrupted_run_encodes_what_is_left(
    quantised: Any, processor: Any, pictures: list[bytes], spoilt: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off in its third batch; where what it wrote of the second is not there, from that on."""
    encoded: list[int] = []

    def counted(model: Any, values: Any) -> Any:
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(len(values))
        return image_features(model, values)

    images, file = (pictures * 3)[:8], tmp_path / "features"
    monkeypatch.setattr(features, "image_features", counted)
    with pytest.raises(KeyboardInterrupt):
        encode_images(quantised, processor, images, 2, file, in_memory=0)
    if spoilt:
        content = bytearray(file.read_bytes())
        content[3 * len(content) // 8] ^= 1
        file.write_bytes(content)
    encoded.clear()
    monkeypatch.setattr(features, "image_features", lambda *given: encoded.append(1) or image_features(*given))
    ours = encode_images(quantised, processor, images, 2, file, in_memory=0)
    assert len(encoded) == 2 + spoilt
    assert torch.equal(ours, encode_images(quantised, processor, images, 2, tmp_path / "undisturbed", in_memory=0))


def test_rows_are_images_by_id() -> None:
    rows = EncodedImages(["a", "b"], torch.arange(12.0).view(2, 3, 2))
    assert len(rows) == 2
    batch = collate([rows[1], rows[0]])
    assert batch["id"] == ["b", "a"]
    assert torch.equal(batch["features"], rows.features.flip(0))


def test_a_disk_too_small_is_told_before_any_work(
    quantised: Any, processor: Any, pictures: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "disk_usage", lambda _: shutil.disk_usage("/")._replace(free=1000))
    with pytest.raises(UserError, match=r"features take .* GB, the disk has 0\.0 GB free"):
        encode_images(quantised, processor, pictures, 2, tmp_path / "features", in_memory=0)
    assert list(tmp_path.iterdir()) == []
