"""The best epoch comes back, the same seed gives the same bytes, and captions are chosen as said."""

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
Learn = Callable[..., tuple[FinetuneResult, dict[str, torch.Tensor]]]


@pytest.fixture
def learn(adapted: Callable[..., Any], processor: Any, pictures: list[bytes], recipe: Any, tmp_path: Path) -> Learn:
    """Fine-tunes a fresh adapter on one caption a picture; gives its weights."""

    def run(
        train: list[str], validation: list[str], choice: str = "first", seed: int = 0, **changed: Any
    ) -> tuple[FinetuneResult, dict[str, torch.Tensor]]:
        model = adapted()
        rows = CaptionRows(pictures, [[caption] for caption in train], PROMPT, choice, seed)
        held = CaptionRows(pictures, [[caption] for caption in validation], PROMPT, "first", seed)
        scratch = tmp_path / "scratch"
        run = TrainingRun(seed, "cpu", scratch)
        done = finetune(model, processor, change(recipe, **changed), rows, held, run)
        return done, {name: value.detach().clone() for name, value in model.named_parameters() if "lora_" in name}

    return run


NEW = ["one white garden", "some yellow sand .", "gray rocks", "a long bridge over the waves"]


def test_the_best_epoch_comes_back(learn: Learn, captions: list[list[str]]) -> None:
    """Another picture's caption is learnt and the own one forgotten: epoch 1 is best of three, bit by bit."""
    known = [own[0] for own in captions]
    others = known[1:] + known[:1]
    three, weights = learn(others, known, epochs=3)
    one, expected = learn(others, known, epochs=1)
    losses = [record["validation_loss"] for record in three.records if "validation_loss" in record]
    assert len(losses) == 3
    assert losses[0] < min(losses[1:])
    assert three.best_epoch == 1
    assert three.validation_loss == losses[0] == one.validation_loss
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


@BOTH
def test_the_last_epoch_comes_back_where_it_is_best(learn: Learn) -> None:
    done, weights = learn(NEW, NEW, epochs=3)
    assert done.best_epoch == 3
    assert any(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)


def test_the_loss_falls_and_the_records_say_so(learn: Learn) -> None:
    done, _ = learn(NEW, NEW, epochs=5)
    steps = [record for record in done.records if "loss" in record]
    validated = [record for record in done.records if "validation_loss" in record]
    assert [record["step"] for record in steps] == [5, 10]
    assert [record["step"] for record in validated] == [2, 4, 6, 8, 10]
    assert [record["epoch"] for record in validated] == [1, 2, 3, 4, 5]
    assert steps[1]["loss"] < steps[0]["loss"]
    assert validated[-1]["validation_loss"] < 0.8 * validated[0]["validation_loss"]
    assert all(record.keys() <= set(COLUMNS) for record in done.records)
    assert all(record["learning_rate"] == 5e-3 for record in steps)


def test_one_seed_the_same_bytes_another_seed_others(learn: Learn) -> None:
    (first, weights), (again, same), (_, other) = (learn(NEW, NEW, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    assert not all(torch.equal(value, other[name]) for name, value in weights.items())


def test_warmup_is_a_share_of_all_steps(learn: Learn) -> None:
    done, _ = learn(NEW, NEW, epochs=5, warmup=0.5, scheduler="constant_with_warmup")
    rates = [record["learning_rate"] for record in done.records if "learning_rate" in record]
    assert rates == pytest.approx([5e-3 * share for share in (4 / 5, 1)])  # steps 5 and 10 of 10; the first has 0


CAPTIONS = [["a", "b", "c"], ["d"], ["e", "f"]]
IMAGES = [b"0", b"1", b"2"]


def texts(rows: CaptionRows) -> list[str]:
    return [rows[index]["caption"] for index in range(len(rows))]


def test_first_is_the_first() -> None:
    rows = CaptionRows(IMAGES, CAPTIONS, PROMPT, "first", 0)
    assert texts(rows) == ["a", "d", "e"]
    assert rows[2] == {"image": b"2", "prompt": PROMPT, "caption": "e"}


def test_all_is_a_row_a_caption() -> None:
    rows = CaptionRows(IMAGES, CAPTIONS, PROMPT, "all", 0)
    assert texts(rows) == ["a", "b", "c", "d", "e", "f"]
    assert [rows[index]["image"] for index in range(6)] == [b"0", b"0", b"0", b"1", b"2", b"2"]


def test_random_changes_with_the_epoch_and_is_its_seeds() -> None:
    many = [[f"{image} {caption}" for caption in range(5)] for image in range(40)]
    rows = CaptionRows([b""] * 40, many, PROMPT, "random", 1)
    epochs = []
    for epoch in range(3):
        rows.epoch = epoch
        epochs.append(texts(rows))
        assert texts(rows) == epochs[-1]
        assert all(text in own for text, own in zip(epochs[-1], many, strict=True))
        assert len({text.split()[1] for text in epochs[-1]}) == 5
    assert epochs[0] != epochs[1] != epochs[2]
    again = CaptionRows([b""] * 40, many, PROMPT, "random", 1)
    assert texts(again) == epochs[0]
    assert texts(CaptionRows([b""] * 40, many, PROMPT, "random", 2)) != epochs[0]


def test_the_trainer_tells_the_rows_their_epoch(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], recipe: Any, tmp_path: Path
) -> None:
    class Seen(CaptionRows):
        def __getitem__(self, index: int) -> dict[str, Any]:
            seen.append(self.epoch)
            return super().__getitem__(index)

    seen: list[int] = []
    train = Seen(pictures, [[own] * 2 for own in NEW], PROMPT, "random", 0)
    held = CaptionRows(pictures, [[own] for own in NEW], PROMPT, "first", 0)
    run = TrainingRun(0, "cpu", tmp_path / "scratch")
    finetune(adapted(), processor, change(recipe, epochs=3), train, held, run)
    assert seen == [0] * 4 + [1] * 4 + [2] * 4
