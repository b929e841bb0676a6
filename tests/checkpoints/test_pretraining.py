"""Pre-training keeps a frozen tower's bytes, computes the loss of pixels from features, and follows its seed."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.tutorial import Collator
from captioning.checkpoints.miniature import load_checkpoint
from captioning.checkpoints.pretraining import (
    CurriculumTexts,
    FactHeads,
    collate_texts,
    decoder_loss,
    draw_images,
    example_rows,
    pixel_values,
    tower_features,
    train_decoder,
    train_tower,
)
from captioning.checkpoints.tags import decode_tagged
from captioning.compute.seeds import seed_everything
from captioning.data.tags import TaggedImage
from captioning.training.run import TrainingRun
from tests.helpers.decoders import BOTH

SIZE = 24
IMAGES = 40


@pytest.fixture(scope="module")
def start(checkpoint: Path) -> Any:
    """Make a model, its processor, scenes and their pixels."""
    seed_everything(0, 1)
    model, processor = load_checkpoint(checkpoint)
    scenes, images = draw_images(IMAGES, SIZE, "test 0")
    return model, processor, scenes, pixel_values(processor, images)


def changed_tensors(model: Any, other: Any) -> set[str]:
    tensors, others = model.state_dict(), other.state_dict()
    assert tensors.keys() == others.keys()
    return {name for name, value in tensors.items() if not torch.equal(value, others[name])}


def teach(start: Any, seed: int, scratch: Path, curriculum: str = "base", epochs: int = 1) -> tuple[Any, float]:
    model, processor, scenes, pixels = start
    model, texts = copy.deepcopy(model), CurriculumTexts(curriculum, scenes, ["alpha"], epochs)
    seed_everything(seed, 1)
    return model, train_decoder(model, processor, pixels, texts, 1e-3, TrainingRun(seed, "cpu", scratch))


@BOTH
def test_decoder_learns_and_the_tower_keeps_its_bytes(start: Any, tmp_path: Path) -> None:
    model, loss = teach(start, 1, tmp_path)
    changed = changed_tensors(model, start[0])
    assert not any("vision_tower" in name for name in changed)
    assert {"model.multi_modal_projector.linear.weight", "model.language_model.embed_tokens.weight"} <= changed
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert teach(start, 1, tmp_path, epochs=5)[1] < loss  # a mean over all steps


def test_decoder_follows_its_seed(start: Any, tmp_path: Path) -> None:
    (model, loss), (same, same_loss), (other, _) = (teach(start, seed, tmp_path, "mix") for seed in (1, 1, 2))
    assert loss == same_loss
    assert not changed_tensors(model, same)
    assert changed_tensors(model, other)


def test_decoder_learns_the_tags_of_other_images(start: Any, pictures: list[bytes], tmp_path: Path) -> None:
    """Their loss is lower than after drawn images alone."""
    model, processor, scenes, pixels = start
    images = [TaggedImage(str(number), image, ["alpha", "plane"], [1, 0.5]) for number, image in enumerate(pictures)]
    run = TrainingRun(1, "cpu", tmp_path)
    tagged = decode_tagged(processor, images, 20 * len(images), run)
    assert tagged is not None
    features = tower_features(model, tagged.normalised())
    batch = collate_texts(processor, example_rows(features, tagged.examples()[: len(pictures)]))
    losses = []
    for part in (None, tagged):
        learner = copy.deepcopy(model)
        seed_everything(1, 1)
        train_decoder(learner, processor, pixels, CurriculumTexts("base", scenes, [], 1), 1e-3, run, part)
        with torch.no_grad():
            losses.append(float(decoder_loss(learner, batch, None)))
    assert losses[1] < 0.9 * losses[0]


@BOTH
def test_tower_features_give_the_librarys_loss_of_pixels(start: Any, pictures: list[bytes]) -> None:
    model, processor, _, _ = start
    processor.tokenizer.padding_side = "right"
    captions = ["a red plane", "many green trees are in the park"]  # of unequal length
    pairs = zip(pictures, captions, strict=False)
    plain = Collator(processor)([{"image": image, "prompt": "tag en", "caption": text} for image, text in pairs])
    features = zip(tower_features(model, plain["pixel_values"]), captions, strict=True)
    batch = collate_texts(processor, [{"patches": patches, "example": ("tag en", text)} for patches, text in features])
    with torch.no_grad():
        torch.testing.assert_close(decoder_loss(model, batch, None), model(**plain).loss, rtol=0, atol=1e-5)
    assert torch.equal(batch["labels"], plain["labels"])


def test_tower_features_do_not_depend_on_their_batch(start: Any) -> None:
    model, _, _, pixels = start
    features = tower_features(model, pixels[:1].expand(300, -1, -1, -1))  # more than one batch
    assert features.shape == (300, 4, 128)
    assert not features.requires_grad
    torch.testing.assert_close(features[-1], tower_features(model, pixels[:1])[0], rtol=1e-4, atol=1e-5)


@BOTH
def test_tower_learns_facts_and_nothing_else_changes(start: Any, tmp_path: Path) -> None:
    model, _, scenes, pixels = start
    results = []
    for epochs in (1, 1, 4):
        learner = copy.deepcopy(model)
        seed_everything(1, 1)
        results.append((learner, train_tower(learner, pixels, scenes, epochs, 1e-3, TrainingRun(1, "cpu", tmp_path))))
    (learner, loss), (same, same_loss), (_, later_loss) = results
    changed = changed_tensors(learner, model)
    assert changed and all("vision_tower" in name for name in changed)
    assert loss == same_loss and not changed_tensors(learner, same)
    assert later_loss < loss


def test_facts_loss_is_a_sum_of_cross_entropies() -> None:
    class Tower(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> Any:
            return type("Output", (), {"last_hidden_state": pixels})

    heads = FactHeads(Tower(), 3, {"colour": ["red", "blue"], "count": [0, 1, 2]})
    pixels = torch.randn(5, 4, 3)
    labels = {"colour": torch.tensor([0, 1, 1, 0, 1]), "count": torch.tensor([2, 0, 1, 1, 0])}
    expected = 0.0
    for name, answers in labels.items():
        log_p = torch.log_softmax(heads.heads[name](pixels.mean(dim=1)), dim=1)
        expected -= sum(log_p[row, answer].item() for row, answer in enumerate(answers))
    assert heads(pixels, **labels).item() == pytest.approx(expected, rel=1e-5)


def test_images_follow_their_seed() -> None:
    scenes, images = draw_images(3, SIZE, "base 1")
    same_scenes, same_images = draw_images(3, SIZE, "base 1")
    assert scenes == same_scenes != draw_images(3, SIZE, "base 2")[0]
    assert [image.tobytes() for image in images] == [image.tobytes() for image in same_images]


def test_pixels_equal_a_calculation_by_hand(start: Any) -> None:
    _, processor, _, pixels = start
    assert pixels.shape == (IMAGES, 3, SIZE, SIZE)
    image = draw_images(1, SIZE, "test 0")[1][0]
    by_hand = torch.tensor(list(image.tobytes())).reshape(SIZE, SIZE, 3).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(pixel_values(processor, [image])[0], by_hand, rtol=0, atol=1e-6)
