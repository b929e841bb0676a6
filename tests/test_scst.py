"""SCST against hand calculation: the loss, its rewards, what is validated when, and what refining raises."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioning.cider import CiderD, DocumentFrequencies
from captioning.decoding import Caption, barred_tokens, greedy_captions
from captioning.policy_gradient import caption_log_probabilities
from captioning.qlora import freeze_encoder
from captioning.scst import COLUMNS, Images, Refined, SCSTTrainer, refine, step_records
from captioning.training import seed_everything, training_arguments
from tests.sampled_captions import PROMPT, sampled, scored_batch

IDS = ["p0", "p1", "p2", "p3"]
RECIPE: dict[str, Any] = dict(
    batch=4, samples=5, epochs=6, learning_rate=3e-3, weight_decay=0.0, gradient_clip=1.0, validate_every=3,
    scheduler="constant", temperature=1.0, baseline="greedy", prompt=PROMPT, maximum_tokens=16,
)  # fmt: skip


def scorers(references: dict[str, list[str]]) -> tuple[CiderD, CiderD]:
    counted = DocumentFrequencies.from_references([["something else"], *references.values()], eos=True)
    return CiderD(counted, references, eos=True), CiderD(counted, references)


@pytest.fixture
def second(captions: list[list[str]]) -> dict[str, list[str]]:
    """References: each picture's second caption, which the model gives a third of its mass."""
    return {id_: [own[1].removesuffix(" .")] for id_, own in zip(IDS, captions, strict=True)}


def trainer_of(
    model: Any, processor: Any, references: dict[str, list[str]], folder: Path, **changed: Any
) -> SCSTTrainer:
    reward, plain = scorers(references)
    trainer = SCSTTrainer(
        model=model,
        args=training_arguments(folder, 0, "cpu"),
        processor=processor,
        recipe=RECIPE | changed,
        reward=reward,
        plain=plain,
    )
    trainer.log = lambda *_: None
    return trainer


@pytest.mark.parametrize("baseline", ["greedy", "leave-one-out"])
def test_the_loss_by_hand(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], second: dict[str, list[str]],
    baseline: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Mean over captions of -A log p, with sampled and greedy captions given."""
    model = adapted(strength=0.05)
    trainer = trainer_of(model, processor, second, tmp_path, samples=2, baseline=baseline)
    texts, ended = ["trees", "a red plane parked", "two blue boats docked", "two"], [True, False, True, True]
    greedy = ["a red plane parked near", "boats"]
    draws = {True: sampled(processor, texts, ended), False: sampled(processor, greedy, [True, False])}
    monkeypatch.setattr(trainer, "_decode", lambda *_, **sampling: draws[bool(sampling)])
    loss = trainer.compute_loss(model, {"id": IDS[:2], "image": pictures[:2]})
    reward = scorers(second)[0]
    r = [reward.score(id_, text, end) for id_, text, end in zip(["p0", "p0", "p1", "p1"], texts, ended, strict=True)]
    b = [reward.score("p0", greedy[0], True)] * 2 + [reward.score("p1", greedy[1], False)] * 2
    if baseline == "leave-one-out":
        b = [r[1], r[0], r[3], r[2]]
    images = [pictures[0], pictures[0], pictures[1], pictures[1]]
    with torch.no_grad():
        base = model.get_base_model()
        batch = scored_batch(base, processor, images, draws[True])
        log_p = caption_log_probabilities(base, batch, barred_tokens(processor), 1.0)
    expected = -sum((mine - its) * p for mine, its, p in zip(r, b, log_p.tolist(), strict=True)) / 4
    assert any(mine != its for mine, its in zip(r, b, strict=True))
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert loss.requires_grad


def test_rewards_are_cider_with_the_end_on_ended_captions_only(
    adapted: Callable[..., Any], processor: Any, second: dict[str, list[str]], tmp_path: Path
) -> None:
    trainer = trainer_of(adapted(), processor, second, tmp_path)
    text = "A red plane parked near the terminal ."  # as PTB has it: lower case, no period
    rewards = trainer._rewards(["p0", "p0"], [Caption(text, 9, True), Caption(text, 8, False)])
    reward = scorers(second)[0]
    tokens = second["p0"][0]
    assert rewards.tolist() == [reward.score("p0", tokens, True), reward.score("p0", tokens, False)]
    assert rewards[0] == pytest.approx(10.0)
    assert rewards[1] < rewards[0]


def test_captions_are_sampled_without_dropout_and_training_goes_on(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], second: dict[str, list[str]], tmp_path: Path
) -> None:
    model = adapted(strength=0.1, dropout=0.9)
    trainer = trainer_of(model, processor, second, tmp_path)
    base = model.get_base_model()
    prompt, features = trainer._encode(base.eval(), pictures)
    assert not features.requires_grad
    expected = trainer._decode(base, prompt, features)
    base.train()
    assert torch.equal(trainer._decode(base, prompt, features), expected)
    assert base.training
    captions = greedy_captions(model, processor, pictures, PROMPT, RECIPE["maximum_tokens"], 4)
    assert [caption.tokens for caption in captions] == (expected != processor.tokenizer.pad_token_id).sum(1).tolist()


Refine = Callable[..., tuple[Refined, Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]]


@pytest.fixture
def refined(adapted: Callable[..., Any], processor: Any, pictures: list[bytes], tmp_path: Path) -> Refine:
    """Refines a fresh adapter; gives the model and all its tensors before and after."""

    def run(
        references: dict[str, list[str]], seed: int = 0, strength: float = 0.0, **changed: Any
    ) -> tuple[Refined, Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        model = adapted(strength=strength, targets="all-linear")
        freeze_encoder(model)
        before = {name: value.detach().clone() for name, value in model.state_dict().items()}
        images = Images(IDS, pictures)
        seed_everything(seed, 1)
        done = refine(
            model, processor, RECIPE | changed, images, images, *scorers(references), seed, "cpu", 8,
            tmp_path / "scratch",
        )  # fmt: skip
        assert not (tmp_path / "scratch").exists()
        return done, model, before, dict(model.state_dict())

    return run


@pytest.mark.parametrize("baseline", ["greedy", "leave-one-out"])
def test_a_few_steps_raise_the_greedy_reward(
    refined: Refine, processor: Any, pictures: list[bytes], second: dict[str, list[str]], baseline: str
) -> None:
    """The rewarded caption has a third of the mass at first, and greedy decoding says another."""
    done, model, before, after = refined(second, baseline=baseline)
    captions = list(greedy_captions(model, processor, pictures, PROMPT, 16, 4))
    plain = scorers(second)[1]
    scored = [plain.score(id_, caption.text.removesuffix(" .")) for id_, caption in zip(IDS, captions, strict=True)]
    assert done.validation_cider > done.start_validation_cider + 100
    assert 100 * np.mean(scored) == pytest.approx(done.validation_cider)  # the best step is what was left
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert len(moved) == 2 * 7 * 4
    assert all("lora_" in name and "language_model" in name for name in moved)


def test_records_of_steps_and_validations(refined: Refine, second: dict[str, list[str]]) -> None:
    """One validation at the start, one each `validate_every` steps, one at the end: none twice."""
    done, *_ = refined(second, samples=2, epochs=2, batch=2, validate_every=3, maximum_tokens=4)
    validated = [record for record in done.records if "validation_cider" in record]
    stepped = [record for record in done.records if "reward" in record]
    assert [record["step"] for record in validated] == [0, 3, 4]
    assert [record["step"] for record in stepped] == [0, 1, 2, 3]
    assert done.best_step in (3, 4)
    assert done.start_validation_cider == validated[0]["validation_cider"]
    assert done.validation_cider == max(record["validation_cider"] for record in validated[1:])
    assert all(record.keys() <= set(COLUMNS) for record in done.records)
    assert all(set(COLUMNS) - {"validation_cider"} == record.keys() for record in stepped)
    for record in stepped:
        assert record["advantage"] == pytest.approx(record["reward"] - record["baseline"])
        assert 0 <= record["ended"] <= 1
        assert 0 < record["distinct"] <= 1


def test_one_validation_an_epochs_end(refined: Refine, second: dict[str, list[str]]) -> None:
    done, *_ = refined(second, samples=2, epochs=2, batch=4, validate_every=1, maximum_tokens=2)
    assert [record["step"] for record in done.records if "validation_cider" in record] == [0, 1, 2]


@pytest.mark.parametrize("baseline", ["greedy", "leave-one-out"])
def test_without_advantage_nothing_moves(refined: Refine, baseline: str) -> None:
    never = {id_: ["zyx wvu"] for id_ in IDS}
    done, _, before, after = refined(never, strength=0.02, baseline=baseline, samples=2, epochs=2, maximum_tokens=6)
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert [record["reward"] for record in done.records if "reward" in record] == [0, 0]


def test_one_seed_the_same_bytes(refined: Refine, second: dict[str, list[str]]) -> None:
    short = dict(samples=3, epochs=2, maximum_tokens=6, validate_every=1)
    (first, _, _, weights), (again, _, _, same), (_, _, _, other) = (
        refined(second, seed=seed, **short) for seed in (1, 1, 2)
    )
    assert first == again
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    assert not all(torch.equal(value, other[name]) for name, value in weights.items())


def test_records_hold_no_times() -> None:
    history = [
        {"eval_cider": 50.0, "eval_length": 9.0, "step": 0},
        {"loss": 1.0, "reward": 2.0, "epoch": 0.5, "step": 1},
        {"train_runtime": 9.0, "train_loss": 1.0, "step": 2},
    ]
    assert step_records(history) == [
        {"validation_cider": 50.0, "step": 0},
        {"loss": 1.0, "reward": 2.0, "step": 1},
    ]


def test_images_are_rows_by_id() -> None:
    rows = Images(["a", "b"], [b"1", b"2"])
    assert len(rows) == 2
    assert rows[1] == {"id": "b", "image": b"2"}
