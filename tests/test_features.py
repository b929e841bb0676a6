"""Features encoded once: in memory or in a file, in whatever batches, what the tower gives."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from captioning import mapped
from captioning.features import EncodedImages, collate, encode_all
from captioning.paligemma import image_features, prompt_inputs
from captioning.runlog import UserError

PROMPT = "caption en"


@pytest.mark.parametrize("batch", [1, 3, 9])
@pytest.mark.parametrize("in_memory", [2**30, 0])
def test_features_are_those_of_the_tower(
    quantised: Any, processor: Any, pictures: list[bytes], batch: int, in_memory: int, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "features"
    ours = encode_all(quantised, processor, pictures, batch, file, in_memory)
    pixel_values = prompt_inputs(processor, pictures, PROMPT)["pixel_values"]
    expected = image_features(quantised, pixel_values).pooler_output
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert not ours.requires_grad
    assert file.exists() == (in_memory == 0)
    if in_memory == 0:
        assert file.stat().st_size == ours.numel() * ours.itemsize
        assert torch.equal(torch.from_file(str(file), size=ours.numel(), dtype=ours.dtype).view_as(ours), ours)


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
        encode_all(quantised, processor, pictures, 2, tmp_path / "features", in_memory=0)
    assert list(tmp_path.iterdir()) == []
