"""SCST against hand calculation: the loss, its rewards, what is validated when, and what refining raises."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.papers_scst import repeated_log_probabilities
from captioning.cider import CiderD, DocumentFrequencies
from captioning.decoding import Caption, barred_tokens, greedy_captions
from captioning.features import EncodedImages
from captioning.paligemma import prompt_inputs
from captioning.qlora import freeze_encoder
from captioning.scst import COLUMNS, Refined, refine, scst_arguments, summary
from captioning.scst_trainer import PARTS, STEP, VALIDATION, SCSTTrainer
from captioning.training import seed_everything, training_arguments
from tests.sampled_captions import PROMPT, encoded, sampled

IDS = ["p0", "p1", "p2", "p3"]
RECIPE: dict[str, Any] = dict(
    batch=4, samples=5, epochs=6, learning_rate=3e-3, weight_decay=0.0, gradient_clip=1.0, validate_every=3,
    scheduler="constant", temperature=1.0, top_k=0, top_p=1.0, kl=0.0, baseline="greedy", prompt=PROMPT,
    maximum_tokens=16,
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


def step_of(trainer: SCSTTrainer, model: Any, features: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of one batch, and its record."""
    records: list[dict[str, float]] = []
    trainer.log = lambda record, *_: records.append(record)  # type: ignore[method-assign, assignment]
    loss = trainer.compute_loss(model, {"id": IDS[: len(features)], "features": features})
    return loss, records[-1]


@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("baseline", ["greedy", "leave-one-out"])
def test_the_loss_by_hand(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], second: dict[str, list[str]],
    baseline: str, kl: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Mean over captions of -A log p, with sampled and greedy captions given; dropout, if any, has no say in it."""
    model = adapted(strength=0.05, dropout=0.5)
    freeze_encoder(model)
    trainer = trainer_of(model, processor, second, tmp_path, samples=2, baseline=baseline, kl=kl)
    texts, ended = ["trees", "a red plane parked", "two blue boats docked", "two"], [True, False, True, True]
    greedy = ["a red plane parked near", "boats"]
    order = [greedy[0], *texts[:2], greedy[1], *texts[2:]] if baseline == "greedy" else texts
    ends = [True, *ended[:2], False, *ended[2:]] if baseline == "greedy" else ended
    monkeypatch.setattr(trainer, "_decode", lambda *_: sampled(processor, order, ends).unflatten(0, (2, -1)))
    start = log_p_of(model, processor, pictures[:2], sampled(processor, texts, ended))
    for name, value in model.named_parameters():  # the policy moves away from where it started
        if value.requires_grad and "lora_B" in name:
            value.data += 0.02
    loss, record = step_of(trainer, model.train(), encoded(model.get_base_model().eval(), processor, pictures[:2]))
    reward = scorers(second)[0]
    r = [reward.score(id_, text, end) for id_, text, end in zip(["p0", "p0", "p1", "p1"], texts, ended, strict=True)]
    log_p = log_p_of(model, processor, pictures[:2], sampled(processor, texts, ended))
    ratio = [mine - its for mine, its in zip(log_p, start, strict=True)]
    assert min(map(abs, ratio)) > 1e-3
    r = [mine - kl * its for mine, its in zip(r, ratio, strict=True)]
    b = [reward.score("p0", greedy[0], True)] * 2 + [reward.score("p1", greedy[1], False)] * 2
    if baseline == "leave-one-out":
        b = [r[1], r[0], r[3], r[2]]
    expected = -sum((mine - its) * p for mine, its, p in zip(r, b, log_p, strict=True)) / 4
    assert any(mine != its for mine, its in zip(r, b, strict=True))
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    assert loss.requires_grad
    assert record["baseline"] == pytest.approx(np.mean(b))
    assert record["advantage"] == pytest.approx(np.mean(np.subtract(r, b)), abs=1e-6)
    assert record["advantage_deviation"] == pytest.approx(np.std(np.subtract(r, b)), rel=1e-4)
    assert record["ended"] == 0.75
    assert record["length"] == 2.5
    assert record["distinct"] == 1
    assert ("kl" in record) == bool(kl)
    assert record.get("kl", np.mean(ratio)) == pytest.approx(np.mean(ratio), rel=1e-3)


def log_p_of(model: Any, processor: Any, images: list[bytes], captions: torch.Tensor) -> list[float]:
    """By the library's forward on repeated rows."""
    prompt = prompt_inputs(processor, images, PROMPT)
    rows, pad = captions.unflatten(0, (len(images), -1)), processor.tokenizer.pad_token_id
    with torch.no_grad():
        return repeated_log_probabilities(model.eval(), prompt, rows, pad, barred_tokens(processor)).flatten().tolist()


def test_rewards_are_cider_with_the_end_on_ended_captions_only(
    adapted: Callable[..., Any], processor: Any, second: dict[str, list[str]], tmp_path: Path
) -> None:
    trainer = trainer_of(adapted(), processor, second, tmp_path)
    text = "A red plane parked near the terminal ."  # as PTB has it: lower case, no period
    rewards = trainer._rewards(["p0"], [[Caption(text, 9, True), Caption(text, 8, False)]])[0]
    reward = scorers(second)[0]
    tokens = second["p0"][0]
    assert rewards.tolist() == [reward.score("p0", tokens, True), reward.score("p0", tokens, False)]
    assert rewards[0] == pytest.approx(10.0)
    assert rewards[1] < rewards[0]


def test_dropout_moves_neither_captions_nor_loss(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], second: dict[str, list[str]], tmp_path: Path
) -> None:
    """What is scored is what was drawn: both without dropout, whatever the adapter's."""
    done = []
    for dropout in (0.0, 0.9):
        model = adapted(strength=0.1, dropout=dropout)
        freeze_encoder(model)
        trainer = trainer_of(model, processor, second, tmp_path)
        features = encoded(model.get_base_model().eval(), processor, pictures)
        torch.manual_seed(2)
        loss, record = step_of(trainer, model.train(), features)
        done.append((loss.item(), record))
    assert done[0] == done[1]


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
        images = EncodedImages(IDS, encoded(model.get_base_model(), processor, pictures))
        seed_everything(seed, 1)
        recipe = RECIPE | changed
        arguments = scst_arguments(recipe, seed, "cpu", 8, tmp_path / "scratch")
        done = refine(model, processor, recipe, images, images, *scorers(references), arguments)
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
    assert done.best["validation_cider"] > done.start["validation_cider"] + 100
    assert done.best["gain"] == pytest.approx(done.best["validation_cider"] - done.start["validation_cider"])
    assert 100 * np.mean(scored) == pytest.approx(done.best["validation_cider"])  # the best step is what was left
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
    assert done.best["step"] in (3, 4)
    assert done.start == validated[0]
    assert done.best["validation_cider"] == max(record["validation_cider"] for record in validated[1:])
    assert all({"step", *STEP} - {"kl"} == record.keys() for record in stepped)
    assert all({"step", *VALIDATION} == record.keys() <= set(COLUMNS) for record in validated)
    assert [done.start[name] for name in ("gain", "gain_low", "gain_high")] == [0, 0, 0]
    for record in stepped:
        assert record["advantage"] == pytest.approx(record["reward"] - record["baseline"])
        assert 0 <= record["ended"] <= 1
        assert 0 < record["distinct"] <= 1
    for record in validated:
        assert record["gain_low"] <= record["gain"] <= record["gain_high"]
        assert record["gain"] == pytest.approx(record["validation_cider"] - done.start["validation_cider"])
    assert len(done.seconds) == 4
    assert all(set(PARTS) == lap.keys() and min(lap.values()) > 0 for lap in done.seconds)


def test_the_summary_by_hand() -> None:
    start = {"step": 0, "validation_cider": 50.0, "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0}
    best = {"step": 8, "validation_cider": 60.0, "gain": 10.0, "gain_low": -5.0, "gain_high": 20.0}
    told = summary(Refined([], [], start, best), 200, 40)
    assert (told["gain_percent"], told["gain_percent_low"], told["gain_percent_high"]) == (20, -10, 40)
    assert (told["best_step"], told["start_validation_cider"], told["validation_cider"]) == (8, 50, 60)
    assert told["signature"].endswith("greedy|max_tokens:40|split:validation|n:200")
    assert summary(Refined([], [], start | {"validation_cider": 0.0}, best), 200, 40)["gain_percent"] is None


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
    assert first.records == again.records
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    assert not all(torch.equal(value, other[name]) for name, value in weights.items())
