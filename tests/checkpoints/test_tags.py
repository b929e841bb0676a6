"""The tower learns tags in each symmetry of a square, and the decoder reads them as lists."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioning.checkpoints.miniature import load_checkpoint
from captioning.checkpoints.pretraining import train_tower_on_tags
from captioning.checkpoints.tags import (
    LISTED_TAGS,
    SYMMETRIES,
    TaggedPixels,
    TagHead,
    TagRows,
    count_tag_epochs,
    decode_tagged,
    turn,
)
from captioning.compute.seeds import seed_everything
from captioning.data.tags import TaggedImage
from captioning.training.run import TrainingRun


@pytest.fixture(scope="module")
def tagged(checkpoint: Path, pictures: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> TaggedPixels:
    _, processor = load_checkpoint(checkpoint)
    images = [TaggedImage(str(i), image, ["plane", f"word{i}"], [1.0, 0.6]) for i, image in enumerate(pictures * 12)]
    run = TrainingRun(1, "cpu", tmp_path_factory.mktemp("tags"))
    decoded = decode_tagged(processor, [*images, TaggedImage("none", pictures[0], [], [])], 2 * len(images), run)
    assert decoded is not None and len(decoded.pixels) == len(images)  # an image without tags teaches nothing
    return decoded


def test_eight_symmetries_are_those_of_a_square() -> None:
    image = torch.arange(3 * 4 * 4).reshape(3, 4, 4)
    turned = [turn(image, symmetry).numpy() for symmetry in range(SYMMETRIES)]
    plain = image.numpy().transpose(1, 2, 0)
    by_numpy = [np.rot90(plain, k) for k in range(4)] + [np.fliplr(np.rot90(plain, k)) for k in range(4)]
    for ours, expected in zip(turned, by_numpy, strict=True):
        np.testing.assert_array_equal(ours.transpose(1, 2, 0), expected)
    assert len({values.tobytes() for values in turned}) == SYMMETRIES


def test_rows_are_turned_by_seed_and_epoch(tagged: TaggedPixels) -> None:
    shape = tagged.pixels[0].shape
    tagged.pixels[0] = (torch.arange(shape.numel()) % 251).reshape(shape).to(torch.uint8)  # of no symmetry
    rows, same = TagRows(tagged, 1), TagRows(tagged, 1)
    assert torch.equal(rows[0]["pixels"], same[0]["pixels"])
    row = tagged.pixels[0]
    turned = {turn(row, symmetry).numpy().tobytes() for symmetry in range(SYMMETRIES)}
    for rows.epoch in range(60):
        turned.discard(rows[0]["pixels"].numpy().tobytes())
    assert not turned  # each symmetry has come
    assert dict(zip(rows.words, rows[1]["tags"].tolist(), strict=True)) == pytest.approx(
        {word: tagged.tags[1].get(word, 0.0) for word in rows.words}
    )


def test_loss_is_the_binary_cross_entropy_of_each_tag() -> None:
    class Tower(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> Any:
            return type("Output", (), {"last_hidden_state": pixels})

    head, shares = TagHead(Tower(), 3, torch.tensor([0.0, 0.5])), torch.tensor([[1.0, 0.0], [0.4, 0.6]])
    pixels = torch.randn(2, 5, 3)
    logits, expected = head.head(pixels.mean(dim=1)), 0.0
    for row in range(2):
        for column in range(2):
            p, share = 1 / (1 + math.exp(-logits[row, column].item())), float(shares[row, column])
            expected -= share * math.log(p) + (1 - share) * math.log(1 - p)
    assert head(pixels, shares).item() == pytest.approx(expected, rel=1e-5)


def test_tower_learns_tags_and_nothing_else_changes(checkpoint: Path, tagged: TaggedPixels, tmp_path: Path) -> None:
    model, _ = load_checkpoint(checkpoint)
    losses = []
    for epochs in (1, 1, 6):
        learner = copy.deepcopy(model)
        seed_everything(1, 1)
        losses.append(train_tower_on_tags(learner, tagged, epochs, 1e-3, TrainingRun(1, "cpu", tmp_path)))
        before, after = model.state_dict(), learner.state_dict()
        changed = {name for name, value in before.items() if not torch.equal(value, after[name])}
        assert changed and all("vision_tower" in name for name in changed)
    assert losses[0] == losses[1] > losses[2]


def test_decoder_reads_lists_of_the_first_tags(tagged: TaggedPixels) -> None:
    many = {f"w{i}": 1.0 for i in range(LISTED_TAGS + 3)}
    examples = TaggedPixels(tagged.processor, tagged.pixels[:1], [many], 2).examples()
    assert examples == [("tag en", " , ".join(list(many)[:LISTED_TAGS]))] * 2


@pytest.mark.parametrize(
    ("examples", "images", "epochs"), [(64000, 5240, 12), (64000, 719, 89), (100, 5240, 1), (0, 719, 0)]
)
def test_few_images_are_seen_more_often(examples: int, images: int, epochs: int) -> None:
    assert count_tag_epochs(examples, images) == epochs
