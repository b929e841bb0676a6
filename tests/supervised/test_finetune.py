"""Fine-tuning returns its best epoch, follows its seed, and learns the captions that the recipe chooses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from captioning.supervised.finetune import COLUMNS, CaptionRows, FinetuneResult, finetune
from captioning.training.run import TrainingRun
from tests.helpers.decoders import BOTH
from tests.helpers.small_recipes import change

PROMPT = "caption en"
Weights = dict[str, torch.Tensor]
Learn = Callable[..., tuple[FinetuneResult, Weights]]


@pytest.fixture
def learn(adapted: Callable[..., Any], processor: Any, pictures: list[bytes], recipe: Any, tmp_path: Path) -> Learn:
    """Return a function that fine-tunes a new adapter on one caption for each image, and returns its weights."""

    def run(train: list[str], validation: list[str], seed: int = 0, **changes: Any) -> tuple[FinetuneResult, Weights]:
        model = adapted()
        captions = [[[text] for text in texts] for texts in (train, validation)]
        splits = [CaptionRows(pictures, texts, PROMPT, "first", seed) for texts in captions]
        result = finetune(model, processor, change(recipe, **changes), *splits, TrainingRun(seed, "cpu", tmp_path))
        return result, {name: value.detach().clone() for name, value in model.named_parameters() if "lora_" in name}

    return run


NEW = ["one white garden", "some yellow sand .", "gray rocks", "a long bridge over the waves"]


def test_best_epoch_is_returned(learn: Learn, captions: list[list[str]]) -> None:
    """The model learns captions of other images and forgets the right ones, so epoch 1 of three is best."""
    right = [texts[0] for texts in captions]
    wrong = right[1:] + right[:1]
    result, weights = learn(wrong, right, epochs=3)
    single, expected = learn(wrong, right, epochs=1)
    losses = [record["validation_loss"] for record in result.records if "validation_loss" in record]
    assert len(losses) == 3
    assert losses[0] < min(losses[1:])
    assert result.best_epoch == 1
    assert result.validation_loss == losses[0] == single.validation_loss
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


@BOTH
def test_loss_falls_and_is_recorded(learn: Learn) -> None:
    result, weights = learn(NEW, NEW, epochs=5)
    steps = [record for record in result.records if "loss" in record]
    validations = [record for record in result.records if "validation_loss" in record]
    assert result.best_epoch == 5
    assert any(value.any() for name, value in weights.items() if "lora_B" in name)
    assert [record["step"] for record in steps] == [5, 10]
    assert [(record["step"], record["epoch"]) for record in validations] == [(2, 1), (4, 2), (6, 3), (8, 4), (10, 5)]
    assert steps[1]["loss"] < steps[0]["loss"]
    assert validations[-1]["validation_loss"] < 0.8 * validations[0]["validation_loss"]
    assert all(record.keys() <= set(COLUMNS) for record in result.records)
    assert all(record["learning_rate"] == 5e-3 for record in steps)


def test_few_images_get_more_epochs_until_the_minimum_of_steps(learn: Learn) -> None:
    """Four rows make two steps, so five steps need three epochs; many epochs stay."""
    for epochs, minimum, expected in (1, 5, 3), (2, 4, 2), (3, 0, 3):
        result, _ = learn(NEW, NEW, epochs=epochs, minimum_steps=minimum)
        validated = [record["epoch"] for record in result.records if "validation_loss" in record]
        assert validated == list(range(1, expected + 1))


def test_fine_tuning_follows_its_seed(learn: Learn) -> None:
    (result, weights), (same_result, same), (_, other) = (learn(NEW, NEW, seed=seed) for seed in (1, 1, 2))
    assert result == same_result
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    assert not all(torch.equal(value, other[name]) for name, value in weights.items())


def test_warmup_is_a_share_of_all_steps(learn: Learn) -> None:
    result, _ = learn(NEW, NEW, epochs=5, warmup=0.5, scheduler="constant_with_warmup")
    rates = [record["learning_rate"] for record in result.records if "learning_rate" in record]
    assert rates == pytest.approx([5e-3 * share for share in (4 / 5, 1)])  # steps 5 and 10 of 10; the first has 0


@pytest.mark.parametrize(("choice", "images", "texts"), [("first", "012", "ade"), ("all", "000122", "abcdef")])
def test_rows_of_a_choice(choice: str, images: str, texts: str) -> None:
    rows = CaptionRows(["0", "1", "2"], [["a", "b", "c"], ["d"], ["e", "f"]], PROMPT, choice, 0)
    expected = [{"image": image, "prompt": PROMPT, "caption": text} for image, text in zip(images, texts, strict=True)]
    assert [rows[index] for index in range(len(rows))] == expected


def test_random_choice_follows_epoch_and_seed() -> None:
    captions = [[f"{image} {caption}" for caption in range(5)] for image in range(40)]

    def epochs(seed: int) -> list[list[str]]:
        rows = CaptionRows([b""] * 40, captions, PROMPT, "random", seed)
        results = []
        for epoch in range(3):
            rows.epoch = epoch
            results.append([rows[index]["caption"] for index in range(len(rows))])
        return results

    for texts in epochs(1):
        assert all(text in choices for text, choices in zip(texts, captions, strict=True))
        assert len({text.split()[1] for text in texts}) == 5
    assert epochs(1) == epochs(1)
    first, second, third = epochs(1)
    assert first != second != third != first != epochs(2)[0]


def test_trainer_sets_the_rows_epoch(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], recipe: Any, tmp_path: Path
) -> None:
    class RecordingRows(CaptionRows):
        def __getitem__(self, index: int) -> dict[str, Any]:
            epochs.append(self.epoch)
            return super().__getitem__(index)

    epochs: list[int] = []
    train = RecordingRows(pictures, [[text] * 2 for text in NEW], PROMPT, "random", 0)
    validation = CaptionRows(pictures, [[text] for text in NEW], PROMPT, "first", 0)
    finetune(adapted(), processor, change(recipe, epochs=3), train, validation, TrainingRun(0, "cpu", tmp_path))
    assert epochs == [0] * 4 + [1] * 4 + [2] * 4
