"""SCST's step against hand calculation: the loss, its distribution, its rewards, dropout."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.papers_scst import repeated_log_probabilities
from captioning.adapters.lora import freeze_encoder
from captioning.decoding import Caption, suppressed_tokens
from captioning.metrics.cider import DocumentFrequencies
from captioning.paligemma.model import prompt_inputs
from captioning.scst.sampling import Sampling
from captioning.scst.scorers import read_scorers
from captioning.scst.trainer import SCSTTrainer, step_summary
from captioning.training.run import TrainingRun
from captioning.training.trainer import training_arguments
from tests.helpers.decoders import BOTH
from tests.helpers.sampled_captions import PROMPT, encode_in_memory, tokenise_captions
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import scst_recipe

Make = Callable[..., Any]  # a fixture that makes models or trainers


@pytest.fixture
def make_trainer(processor: Any, captions: list[list[str]], tmp_path: Path) -> Make:
    def make(model: Any, **changes: Any) -> SCSTTrainer:
        freeze_encoder(model)
        trainer = SCSTTrainer(
            model=model,
            args=training_arguments(TrainingRun(0, "cpu", tmp_path)),
            processor=processor,
            settings=scst_recipe(**changes).scst,
            scorers=make_scorers(second_captions(captions)),
        )
        trainer.log = lambda *_: None  # type: ignore[method-assign, assignment]
        return trainer

    return make


def run_step(trainer: SCSTTrainer, images: list[bytes]) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss of a batch, and its record."""
    model: Any = trainer.model
    features = encode_in_memory(model.get_base_model().eval(), trainer.processor, images)
    torch.manual_seed(2)
    loss = trainer.compute_loss(model.train(), {"id": IDS[: len(features)], "features": features})
    return loss, step_summary(loss.item(), [sample for image in trainer.samples for sample in image])


def library_log_p(model: Any, processor: Any, images: list[bytes], captions: torch.Tensor) -> np.ndarray:
    """Score captions at temperature 0.7 with the library's forward on repeated rows."""
    prompt = prompt_inputs(processor, images, PROMPT)
    rows, pad = captions.unflatten(0, (len(images), -1)), processor.tokenizer.pad_token_id
    with torch.no_grad():
        log_p = repeated_log_probabilities(model.eval(), prompt, rows, pad, suppressed_tokens(processor), 0.7)
    return log_p.double().numpy()


@BOTH
@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("baseline", ["greedy", "leave-one-out"])
def test_the_loss_by_hand(
    adapted: Make,
    processor: Any,
    pictures: list[bytes],
    make_trainer: Make,
    baseline: str,
    kl: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The mean over fixed captions of -A log p; dropout does not count."""
    model, images, ids = adapted(strength=0.05, dropout=0.5), pictures[:2], ["p0", "p0", "p1", "p1"]
    trainer = make_trainer(model, samples=2, baseline=baseline, kl=kl, temperature=0.7)
    texts, ended = ["trees", "a red plane parked", "two blue boats docked", "two"], [True, False, True, True]
    greedy, greedy_ended = ["a red plane parked near", "boats"], [True, False]
    sampled = tokenise_captions(processor, texts, ended)
    order = [0, 2, 3, 1, 4, 5] if baseline == "greedy" else [2, 3, 4, 5]  # the greedy caption of each image first
    rows = tokenise_captions(processor, [*greedy, *texts], [*greedy_ended, *ended])[order]
    monkeypatch.setattr(trainer, "_decode", lambda *_: rows.unflatten(0, (2, -1)))
    start = library_log_p(model, processor, images, sampled)
    for name, value in model.named_parameters():  # the policy leaves its start
        if value.requires_grad and "lora_B" in name:
            value.data += 0.02
    log_p = library_log_p(model, processor, images, sampled)
    loss, record = run_step(trainer, images)
    ratio = log_p - start
    assert np.abs(ratio).min() > 1e-3
    rewards = trainer.scorers.reward.scores(ids, texts, ended).reshape(2, 2) - kl * ratio
    baselines = rewards[:, ::-1]
    if baseline == "greedy":
        baselines = trainer.scorers.reward.scores(["p0", "p1"], greedy, greedy_ended)[:, None].repeat(2, axis=1)
    advantage = rewards - baselines
    assert advantage.any()
    assert loss.item() == pytest.approx(-(advantage * log_p).mean(), rel=1e-3)
    assert loss.requires_grad
    assert record["baseline"] == pytest.approx(baselines.mean())
    assert record["advantage"] == pytest.approx(advantage.mean(), abs=1e-6)
    assert record["advantage_deviation"] == pytest.approx(advantage.std(), rel=1e-4)
    assert (record["ended"], record["length"], record["distinct"]) == (0.75, 2.5, 1)
    assert ("kl" in record) == bool(kl)
    assert record.get("kl", ratio.mean()) == pytest.approx(ratio.mean(), rel=1e-3)


def test_the_recipe_sets_the_distribution(adapted: Make, processor: Any, make_trainer: Make) -> None:
    cuts = {"temperature": 0.7, "top_k": 9, "top_p": 0.8}
    assert make_trainer(adapted(), **cuts).sampling == Sampling(tuple(suppressed_tokens(processor)), **cuts)


def test_rewards_count_the_end_of_ended_captions(adapted: Make, make_trainer: Make) -> None:
    trainer = make_trainer(adapted())
    text = "A red plane parked near the terminal ."  # PTB makes it lower case, without the period
    ended, cut = trainer._rewards(["p0"], [[Caption(text, 9, True), Caption(text, 8, False)]])[0]
    assert ended == pytest.approx(10.0)
    assert cut == trainer.scorers.reward.score("p0", "a red plane parked near the terminal", ended=False) < ended


def test_dropout_changes_neither_captions_nor_loss(adapted: Make, pictures: list[bytes], make_trainer: Make) -> None:
    results = []
    for dropout in (0.0, 0.9):
        loss, record = run_step(make_trainer(adapted(strength=0.1, dropout=dropout)), pictures)
        results.append((loss.item(), record))
    assert results[0] == results[1]


def test_the_reward_counts_the_end_and_validation_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = {"a": ["many green trees", "some trees"], "b": ["a white roof"], "c": ["two boats"]}
    frequencies = DocumentFrequencies.from_references(tokens.values(), eos=True)
    folder = tmp_path / "data/references"
    folder.mkdir(parents=True)
    for name, content in (("tokens", tokens), ("document_frequencies", asdict(frequencies))):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    reward, validation = read_scorers(["a", "b"])
    assert reward.references.keys() == validation.references.keys() == {"a", "b"}
    assert reward.score("b", "a white roof", ended=True) > reward.score("b", "a white roof", ended=False)
    assert validation.score("b", "a white roof", ended=True) == validation.score("b", "a white roof", ended=False)
