"""Refining: what it raises, what it leaves, what is validated when, and what never moves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captioning.adapters.lora import freeze_encoder
from captioning.compute.seeds import seed_everything
from captioning.decoding import greedy_captions
from captioning.scst.features import EncodedImages
from captioning.scst.refine import COLUMNS, Refinement, Scorers, refine, summarise
from captioning.scst.trainer import PARTS, STEP_COLUMNS, VALIDATION_COLUMNS
from captioning.training.run import TrainingRun
from captioning.training.states import trainable_weights
from tests.helpers.sampled_captions import PROMPT, encode_in_memory
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import scst_recipe


@pytest.fixture
def second(captions: list[list[str]]) -> dict[str, list[str]]:
    return second_captions(captions)


class Told:
    """Validation scores by decree, 0 to 10, one a validation; keeps the weights that each was of."""

    def __init__(self, model: Any, scores: list[float]) -> None:
        self.model, self.told, self.weights = model, scores, list[dict[str, torch.Tensor]]()

    def scores(self, ids: Sequence[str], tokens: Sequence[str]) -> np.ndarray:
        self.weights.append(trainable_weights(self.model))
        return np.full(len(ids), self.told[len(self.weights) - 1])


@pytest.mark.parametrize("start", [0.5, 0.95])
def test_the_best_validated_step_is_what_is_left(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], second: dict[str, list[str]], start: float,
    tmp_path: Path,
) -> None:  # fmt: skip
    """The first step is told to be the best: not the last, and never the start, however good."""
    model = adapted()
    freeze_encoder(model)
    images = EncodedImages(IDS, encode_in_memory(model.get_base_model(), processor, pictures))
    told, recipe = Told(model, [start, 0.9, 0.2, 0.1]), scst_recipe(epochs=3, validate_every=1)
    plain: Any = told
    run = TrainingRun(0, "cpu", tmp_path / "scratch")
    done = refine(model, processor, recipe, images, images, Scorers(make_scorers(second).reward, plain), run)
    assert (done.start["validation_cider"], done.best["validation_cider"], done.best["step"]) == (100 * start, 90, 1)
    assert done.best["gain"] == pytest.approx(90 - 100 * start)
    left = trainable_weights(model)
    assert all(torch.equal(value, told.weights[1][name]) for name, value in left.items())
    assert not all(torch.equal(value, told.weights[3][name]) for name, value in left.items())


Refine = Callable[..., tuple[Refinement, Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]]


@pytest.fixture
def refined(adapted: Callable[..., Any], processor: Any, pictures: list[bytes], tmp_path: Path) -> Refine:
    """Refines a fresh adapter; gives the model and all its tensors before and after."""

    def run(
        references: dict[str, list[str]], seed: int = 0, strength: float = 0.0, **changed: Any
    ) -> tuple[Refinement, Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        model = adapted(strength=strength, targets="all-linear")
        freeze_encoder(model)
        before = {name: value.detach().clone() for name, value in model.state_dict().items()}
        images = EncodedImages(IDS, encode_in_memory(model.get_base_model(), processor, pictures))
        seed_everything(seed, 1)
        run, recipe = TrainingRun(seed, "cpu", tmp_path / "scratch"), scst_recipe(**changed)
        done = refine(model, processor, recipe, images, images, make_scorers(references), run)
        return done, model, before, dict(model.state_dict())

    return run


@pytest.mark.parametrize(
    ("decoder", "baseline"), [("gemma", "greedy"), ("gemma", "leave-one-out"), ("gemma2", "greedy")],
    indirect=["decoder"],
)  # fmt: skip
def test_a_few_steps_raise_the_greedy_reward(
    refined: Refine, processor: Any, pictures: list[bytes], second: dict[str, list[str]], baseline: str
) -> None:
    """The rewarded caption has a third of the mass at first, and greedy decoding says another."""
    done, model, before, after = refined(second, baseline=baseline)
    captions = list(greedy_captions(model, processor, pictures, PROMPT, 16, 4))
    plain = make_scorers(second)[1]
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
    assert all({"step", *STEP_COLUMNS} - {"kl"} == record.keys() for record in stepped)
    assert all({"step", *VALIDATION_COLUMNS} == record.keys() <= set(COLUMNS) for record in validated)
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
    told = summarise(Refinement([], [], start, best), 200, 40)
    assert (told["gain_percent"], told["gain_percent_low"], told["gain_percent_high"]) == (20, -10, 40)
    assert (told["best_step"], told["start_validation_cider"], told["validation_cider"]) == (8, 50, 60)
    assert told["signature"].endswith("greedy|max_tokens:40|split:validation|n:200")
    assert summarise(Refinement([], [], start | {"validation_cider": 0.0}, best), 200, 40)["gain_percent"] is None


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
