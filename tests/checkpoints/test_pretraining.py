"""Pre-training leaves a frozen tower its bytes, sees by features what pixels show, and is its seed's."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.tutorial import Collator
from captioning.checkpoints.miniature import load_checkpoint
from captioning.checkpoints.pretraining import (
    FactHeads,
    Texts,
    collate_texts,
    decoder_loss,
    draw_images,
    pixel_values,
    tower_features,
    train_decoder,
    train_tower,
)
from captioning.compute.seeds import seed_everything
from captioning.paligemma.model import IGNORED
from captioning.training.run import TrainingRun
from tests.helpers.decoders import BOTH

SIZE = 24
IMAGES = 40


@pytest.fixture(scope="module")
def world(checkpoint: Path) -> Any:
    """Model, processor, scenes and their pixels."""
    seed_everything(0, 1)
    model, processor = load_checkpoint(checkpoint)
    scenes, pictures = draw_images(IMAGES, SIZE, "test 0")
    return model, processor, scenes, pixel_values(processor, pictures)


def tensors(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name, value in one.items() if not torch.equal(value, other[name])}


def taught(world: Any, seed: int, scratch: Path, curriculum: str = "base", epochs: int = 1) -> tuple[Any, float]:
    model, processor, scenes, pixels = world
    model = copy.deepcopy(model)
    seed_everything(seed, 1)
    loss = train_decoder(
        model, processor, pixels, Texts(curriculum, scenes, ["alpha"], epochs), 1e-3, TrainingRun(seed, "cpu", scratch)
    )
    return model, loss


@BOTH
def test_the_decoder_learns_and_the_tower_keeps_its_bytes(world: Any, tmp_path: Path) -> None:
    model, loss = taught(world, 1, tmp_path)
    moved = differing(tensors(model), tensors(world[0]))
    assert not any("vision_tower" in name for name in moved)
    assert {"model.multi_modal_projector.linear.weight", "model.language_model.embed_tokens.weight"} <= moved
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert taught(world, 1, tmp_path, epochs=5)[1] < loss  # a mean over all steps


def test_one_seed_the_same_bytes(world: Any, tmp_path: Path) -> None:
    (one, loss), (same, again), (other, _) = (taught(world, seed, tmp_path, "mix") for seed in (1, 1, 2))
    assert loss == again
    assert not differing(tensors(one), tensors(same))
    assert differing(tensors(one), tensors(other))


@BOTH
def test_what_the_tower_saw_gives_the_loss_of_the_pixels(world: Any, pictures: list[bytes]) -> None:
    """Against the library's own loss on pixels, for captions of unequal length."""
    model, processor, _, _ = world
    processor.tokenizer.padding_side = "right"
    captions = ["a red plane", "many green trees are in the park"]
    rows = [
        {"image": image, "prompt": "tag en", "caption": caption}
        for image, caption in zip(pictures, captions, strict=False)
    ]
    plain = Collator(processor)(rows)
    seen = tower_features(model, plain["pixel_values"])
    ours = collate_texts(
        processor, [{"seen": seen[i], "example": ("tag en", caption)} for i, caption in enumerate(captions)]
    )
    with torch.no_grad():
        theirs = model(**plain).loss
        torch.testing.assert_close(decoder_loss(model, ours, None), theirs, rtol=0, atol=1e-5)
    assert int((ours["labels"] != IGNORED).sum()) == int((plain["labels"] != IGNORED).sum())


def test_features_are_seen_in_parts_as_whole(world: Any) -> None:
    model, _, _, pixels = world
    many = pixels[:1].expand(300, -1, -1, -1)  # more than one part
    features = tower_features(model, many)
    assert features.shape == (300, 4, 128)
    assert not features.requires_grad
    with torch.no_grad():
        whole = model.model.vision_tower(pixels[:1]).last_hidden_state
    torch.testing.assert_close(features[-1], whole[0], rtol=1e-4, atol=1e-5)


@BOTH
def test_the_tower_learns_facts_and_nothing_else_moves(world: Any, tmp_path: Path) -> None:
    model, _, scenes, pixels = world
    runs = []
    for epochs in (1, 1, 4):
        learner = copy.deepcopy(model)
        seed_everything(1, 1)
        runs.append((learner, train_tower(learner, pixels, scenes, epochs, 1e-3, TrainingRun(1, "cpu", tmp_path))))
    (one, loss), (same, again), (_, later) = runs
    moved = differing(tensors(one), tensors(model))
    assert moved
    assert all("vision_tower" in name for name in moved)
    assert loss == again
    assert not differing(tensors(one), tensors(same))
    assert later < loss


def test_the_heads_loss_is_a_sum_of_cross_entropies() -> None:
    class Tower(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> Any:
            return type("Seen", (), {"last_hidden_state": pixels})

    heads = FactHeads(Tower(), 3, {"colour": ["red", "blue"], "count": [0, 1, 2]})
    pixels = torch.randn(5, 4, 3)
    labels = {"colour": torch.tensor([0, 1, 1, 0, 1]), "count": torch.tensor([2, 0, 1, 1, 0])}
    expected = 0.0
    for name, answers in labels.items():
        log_p = torch.log_softmax(heads.heads[name](pixels.mean(dim=1)), dim=1)
        expected -= sum(log_p[row, answer].item() for row, answer in enumerate(answers))
    assert heads(pixels, **labels).item() == pytest.approx(expected, rel=1e-5)


def test_pictures_are_their_seeds() -> None:
    scenes, pictures = draw_images(3, SIZE, "base 1")
    again, same = draw_images(3, SIZE, "base 1")
    assert scenes == again
    assert [one.tobytes() for one in pictures] == [one.tobytes() for one in same]
    assert draw_images(3, SIZE, "base 2")[0] != scenes
    assert all(one.size == (SIZE, SIZE) for one in pictures)


def test_pixels_are_the_processors(world: Any) -> None:
    _, processor, _, pixels = world
    assert pixels.shape == (IMAGES, 3, SIZE, SIZE)
    picture = draw_images(1, SIZE, "test 0")[1][0]
    by_hand = torch.tensor(list(picture.tobytes())).reshape(SIZE, SIZE, 3).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(pixel_values(processor, [picture])[0], by_hand, rtol=0, atol=1e-6)
