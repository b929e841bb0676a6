"""Refinement: what improves, what remains, when it validates, and what never changes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from captioning.adapters.lora import freeze_encoder
from captioning.compute.seeds import seed_everything
from captioning.decoding import greedy_captions
from captioning.scst.features import EncodedImages
from captioning.scst.refine import COLUMNS, RefinementResult, refine, summarise
from captioning.scst.trainer import PARTS, STEP_COLUMNS, VALIDATION_COLUMNS, SCSTTrainer
from captioning.training.run import TrainingRun
from captioning.training.states import trainable_weights
from tests.helpers.sampled_captions import PROMPT, encode_in_memory
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import scst_recipe

Make = Callable[..., Any]  # a fixture that makes models or outcomes
Weights = dict[str, torch.Tensor]


class Outcome(NamedTuple):
    result: RefinementResult
    model: Any
    changed: set[str]  # names of tensors


@pytest.fixture
def references(captions: list[list[str]]) -> dict[str, list[str]]:
    return second_captions(captions)


@pytest.fixture
def refined(adapted: Make, processor: Any, pictures: list[bytes], tmp_path: Path) -> Make:
    """Return a function that refines a new adapter."""

    def run(
        references: dict[str, list[str]], seed: int = 0, strength: float = 0.0, rslora: bool = False, **changes: Any
    ) -> Outcome:
        model = adapted(strength=strength, targets="all-linear", rslora=rslora)
        freeze_encoder(model)
        before = {name: value.detach().clone() for name, value in model.state_dict().items()}
        images = EncodedImages(IDS, encode_in_memory(model.get_base_model(), processor, pictures))
        seed_everything(seed, 1)
        training_run, recipe = TrainingRun(seed, "cpu", tmp_path / "scratch"), scst_recipe(**changes)
        result = refine(model, processor, recipe, images, images, make_scorers(references), training_run)
        after = model.state_dict()
        return Outcome(result, model, {name for name, value in after.items() if not torch.equal(value, before[name])})

    return run


@pytest.mark.parametrize("start", [50.0, 95.0])
def test_the_best_validated_step_remains(
    refined: Make, references: dict[str, list[str]], start: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step has the best score: the last does not remain, and the start does not, however good it is."""
    scores, weights, report_validation = [start, 90.0, 20.0, 10.0], list[Weights](), SCSTTrainer.report_validation

    def report(trainer: SCSTTrainer, metrics: dict[str, float]) -> dict[str, float]:
        weights.append(trainable_weights(trainer.model))
        return report_validation(trainer, metrics | {"eval_cider": scores[len(weights) - 1]})

    monkeypatch.setattr(SCSTTrainer, "report_validation", report)
    result, model, _ = refined(references, epochs=3, validate_every=1)
    assert (result.start["validation_cider"], result.best["validation_cider"], result.best["step"]) == (start, 90, 1)
    final = trainable_weights(model)
    assert all(torch.equal(value, weights[1][name]) for name, value in final.items())
    assert not all(torch.equal(value, weights[3][name]) for name, value in final.items())


@pytest.mark.parametrize(
    ("decoder", "baseline"),
    [("gemma", "greedy"), ("gemma", "leave-one-out"), ("gemma2", "greedy")],
    indirect=["decoder"],
)
def test_a_few_steps_raise_the_greedy_reward(
    refined: Make, processor: Any, pictures: list[bytes], references: dict[str, list[str]], baseline: str
) -> None:
    """The rewarded caption first has a third of the probability, and greedy decoding gives another."""
    result, model, changed = refined(references, baseline=baseline)
    captions = greedy_captions(model, processor, pictures, PROMPT, 16, 4)
    texts = [caption.text.removesuffix(" .") for caption in captions]
    assert result.best["validation_cider"] > result.start["validation_cider"] + 100
    assert 100 * make_scorers(references).validation.scores(IDS, texts).mean() == pytest.approx(
        result.best["validation_cider"]
    )
    assert len(changed) == 2 * 7 * 4
    assert all("lora_" in name and "language_model" in name for name in changed)


def test_a_rank_stabilised_adapter_improves_as_well(refined: Make, references: dict[str, list[str]]) -> None:
    """Its factor of B A is twice the other's, so its rate is halved, as in params/recipes.py."""
    result, *_ = refined(references, rslora=True, learning_rate=1.5e-3)
    assert result.best["validation_cider"] > result.start["validation_cider"] + 100


@pytest.mark.parametrize(
    ("batch", "validate_every", "validated", "steps"), [(2, 3, [0, 3, 4], [0, 1, 2, 3]), (4, 1, [0, 1, 2], [0, 1])]
)
def test_records_of_steps_and_validations(
    refined: Make,
    references: dict[str, list[str]],
    batch: int,
    validate_every: int,
    validated: list[int],
    steps: list[int],
) -> None:
    """Validations come at the start, each `validate_every` steps and at the end, but never twice at one step."""
    sizes = dict(samples=2, epochs=2, batch=batch, validate_every=validate_every, maximum_tokens=4)
    result, *_ = refined(references, **sizes)
    validation_records = [record for record in result.records if "validation_cider" in record]
    step_records = [record for record in result.records if "reward" in record]
    assert [record["step"] for record in validation_records] == validated
    assert [record["step"] for record in step_records] == steps
    assert result.start == validation_records[0]
    assert result.best["validation_cider"] == max(record["validation_cider"] for record in validation_records[1:])
    assert all({"step", *STEP_COLUMNS} - {"kl"} == record.keys() for record in step_records)
    assert all({"step", *VALIDATION_COLUMNS} == record.keys() <= set(COLUMNS) for record in validation_records)
    assert [result.start[name] for name in ("gain", "gain_low", "gain_high")] == [0, 0, 0]
    for record in step_records:
        assert record["advantage"] == pytest.approx(record["reward"] - record["baseline"])
        assert 0 <= record["ended"] <= 1
        assert 0 < record["distinct"] <= 1
    for record in validation_records:
        assert record["gain_low"] <= record["gain"] <= record["gain_high"]
        assert record["gain"] == pytest.approx(record["validation_cider"] - result.start["validation_cider"])
    assert len(result.seconds) == len(steps)
    assert all(set(PARTS) == seconds.keys() and min(seconds.values()) > 0 for seconds in result.seconds)


def test_the_summary_by_hand() -> None:
    start = {"step": 0, "validation_cider": 50.0, "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0}
    best = {"step": 8, "validation_cider": 60.0, "gain": 10.0, "gain_low": -5.0, "gain_high": 20.0}
    assert summarise(RefinementResult([], [], start, best), 200, 40) == {
        "best_step": 8,
        "start_validation_cider": 50,
        "validation_cider": 60,
        "gain_percent": 20,
        "gain_percent_low": -10,
        "gain_percent_high": 40,
        "signature": "CIDEr-D|PTB|refs:all|df:train|greedy|max_tokens:40|split:validation|n:200",
    }
    assert summarise(RefinementResult([], [], start | {"validation_cider": 0.0}, best), 200, 40)["gain_percent"] is None


@pytest.mark.parametrize("baseline", ["greedy", "leave-one-out"])
def test_without_advantage_nothing_changes(refined: Make, baseline: str) -> None:
    references = {id_: ["zyx wvu"] for id_ in IDS}
    sizes = dict(samples=2, epochs=2, maximum_tokens=6)
    result, _, changed = refined(references, strength=0.02, baseline=baseline, **sizes)
    assert not changed
    assert [record["reward"] for record in result.records if "reward" in record] == [0, 0]


def test_a_seed_determines_records_and_weights(refined: Make, references: dict[str, list[str]]) -> None:
    sizes = dict(samples=3, epochs=2, maximum_tokens=6, validate_every=1)
    first, again, other = (refined(references, seed=seed, **sizes) for seed in (1, 1, 2))
    weights, same, different = (trainable_weights(outcome.model) for outcome in (first, again, other))
    assert first.result.records == again.result.records
    assert all(torch.equal(value, same[name]) for name, value in weights.items())
    assert not all(torch.equal(value, different[name]) for name, value in weights.items())
