"""SCST's step against hand calculation: the loss, its distribution, its rewards, dropout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.papers_scst import repeated_log_probabilities
from captioning.adapters.lora import freeze_encoder
from captioning.decoding import Caption, forbidden_tokens
from captioning.paligemma.model import prompt_inputs
from captioning.scst.sampling import Sampling
from captioning.scst.trainer import SCSTTrainer, step_summary
from captioning.training.run import TrainingRun
from captioning.training.trainer import training_arguments
from tests.helpers.decoders import BOTH
from tests.helpers.sampled_captions import PROMPT, encode_in_memory, tokenise_captions
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import scst_recipe


@pytest.fixture
def second(captions: list[list[str]]) -> dict[str, list[str]]:
    return second_captions(captions)


def trainer_of(
    model: Any, processor: Any, references: dict[str, list[str]], folder: Path, **changed: Any
) -> SCSTTrainer:
    reward, plain = make_scorers(references)
    trainer = SCSTTrainer(
        model=model,
        args=training_arguments(TrainingRun(0, "cpu", folder)),
        processor=processor,
        settings=scst_recipe(**changed).scst,
        reward=reward,
        plain=plain,
    )
    trainer.log = lambda *_: None
    return trainer


def step_of(trainer: SCSTTrainer, model: Any, features: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of one batch, and its record."""
    loss = trainer.compute_loss(model, {"id": IDS[: len(features)], "features": features})
    return loss, step_summary(loss.item(), [one for of_image in trainer.drawn for one in of_image])


@BOTH
@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("baseline", ["greedy", "leave-one-out"])
def test_the_loss_by_hand(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], second: dict[str, list[str]],
    baseline: str, kl: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    """Mean over captions of -A log p, with sampled and greedy captions given; dropout, if any, has no say in it."""
    model = adapted(strength=0.05, dropout=0.5)
    freeze_encoder(model)
    trainer = trainer_of(model, processor, second, tmp_path, samples=2, baseline=baseline, kl=kl, temperature=0.7)
    texts, ended = ["trees", "a red plane parked", "two blue boats docked", "two"], [True, False, True, True]
    greedy = ["a red plane parked near", "boats"]
    order = [greedy[0], *texts[:2], greedy[1], *texts[2:]] if baseline == "greedy" else texts
    ends = [True, *ended[:2], False, *ended[2:]] if baseline == "greedy" else ended
    monkeypatch.setattr(trainer, "_decode", lambda *_: tokenise_captions(processor, order, ends).unflatten(0, (2, -1)))
    start = log_p_of(model, processor, pictures[:2], tokenise_captions(processor, texts, ended))
    for name, value in model.named_parameters():  # the policy moves away from where it started
        if value.requires_grad and "lora_B" in name:
            value.data += 0.02
    loss, record = step_of(
        trainer, model.train(), encode_in_memory(model.get_base_model().eval(), processor, pictures[:2])
    )
    reward = make_scorers(second)[0]
    r = [reward.score(id_, text, end) for id_, text, end in zip(["p0", "p0", "p1", "p1"], texts, ended, strict=True)]
    log_p = log_p_of(model, processor, pictures[:2], tokenise_captions(processor, texts, ended))
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


def test_the_recipe_says_which_distribution(
    adapted: Callable[..., Any], processor: Any, second: dict[str, list[str]], tmp_path: Path
) -> None:
    cuts = {"temperature": 0.7, "top_k": 9, "top_p": 0.8}
    trainer = trainer_of(adapted(), processor, second, tmp_path, **cuts)
    assert trainer.sampling == Sampling(tuple(forbidden_tokens(processor)), **cuts)


def log_p_of(model: Any, processor: Any, images: list[bytes], captions: torch.Tensor) -> list[float]:
    """By the library's forward on repeated rows."""
    prompt = prompt_inputs(processor, images, PROMPT)
    rows, pad = captions.unflatten(0, (len(images), -1)), processor.tokenizer.pad_token_id
    with torch.no_grad():
        return (
            repeated_log_probabilities(model.eval(), prompt, rows, pad, forbidden_tokens(processor), 0.7)
            .flatten()
            .tolist()
        )


def test_rewards_are_cider_with_the_end_on_ended_captions_only(
    adapted: Callable[..., Any], processor: Any, second: dict[str, list[str]], tmp_path: Path
) -> None:
    trainer = trainer_of(adapted(), processor, second, tmp_path)
    text = "A red plane parked near the terminal ."  # as PTB has it: lower case, no period
    rewards = trainer._rewards(["p0"], [[Caption(text, 9, True), Caption(text, 8, False)]])[0]
    reward = make_scorers(second)[0]
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
        features = encode_in_memory(model.get_base_model().eval(), processor, pictures)
        torch.manual_seed(2)
        loss, record = step_of(trainer, model.train(), features)
        done.append((loss.item(), record))
    assert done[0] == done[1]
