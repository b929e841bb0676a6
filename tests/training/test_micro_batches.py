"""The size of a micro-batch, fixed or chosen by memory, changes neither gradients nor draws nor records."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from captioning.adapters.lora import freeze_encoder
from captioning.compute.seeds import seed_everything
from captioning.limits import memory
from captioning.limits.memory import Need, finetune_needs
from captioning.limits.scst import scst_needs
from captioning.limits.sizes import fit_machine
from captioning.params.recipe import Recipe, ScstRecipe
from captioning.scst.features import EncodedImages
from captioning.scst.refine import refine
from captioning.supervised.finetune import CaptionRows, finetune
from captioning.training.run import TrainingRun
from captioning.training.states import trainable_weights
from tests.conftest import PROMPT
from tests.helpers.sampled_captions import encode_in_memory
from tests.helpers.scst_toy import IDS, make_scorers, second_captions
from tests.helpers.small_recipes import change, scst_recipe, variant_recipe

Weights = dict[str, torch.Tensor]
Train = Callable[[Any], tuple[Weights, list[dict[str, Any]]]]
SUPERVISED = variant_recipe(batch=2, accumulation=2, epochs=3, training_rows="auto", decoding_batch="auto")
REFINED = scst_recipe(batch=4, samples=3, epochs=4, validate_every=2, kl=0.1, scst_images="auto", decoding_batch="auto")


@pytest.fixture
def train(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], captions: list[list[str]], tmp_path: Path
) -> Train:
    """Return a function that runs the training of a recipe, by its kind, on four images."""

    def run(recipe: Any) -> tuple[Weights, list[dict[str, Any]]]:
        model, training_run = adapted(strength=0.05), TrainingRun(1, "cpu", tmp_path)
        if isinstance(recipe, ScstRecipe):
            freeze_encoder(model)
            images = EncodedImages(IDS, encode_in_memory(model.get_base_model(), processor, pictures))
            seed_everything(1, 1)
            scorers = make_scorers(second_captions(captions))
            records = refine(model, processor, recipe, images, images, scorers, training_run).records
        else:
            rows = [CaptionRows(pictures, captions, PROMPT, "first", 1) for _ in range(2)]
            seed_everything(1, 1)
            records = finetune(model, processor, recipe, *rows, training_run).records
        return trainable_weights(model), records

    return run


def needs(recipe: Recipe, checkpoint: Path) -> list[Need]:
    if isinstance(recipe, ScstRecipe):
        return scst_needs(checkpoint, recipe, "cpu")
    return finetune_needs(checkpoint, recipe, 12, "cpu")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recipe", "key", "columns"),
    [(SUPERVISED, "training_rows", 2), (REFINED, "scst_images", 9)],
    ids=["supervised", "scst"],
)
def test_a_chosen_size_changes_no_gradient(
    recipe: Recipe, key: str, columns: int, train: Train, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory for two of a step's four rows is free. The same training in one piece has other roundings only; its
    samples, rewards and validations are the same."""
    need = needs(recipe, checkpoint)[0]
    two, four = (sum(need.fixed.values()) + memory.LIBRARY_BYTES + int(1.36 * need.step(size)) for size in (2, 4))
    assert two < four
    monkeypatch.setattr(memory, "free_bytes", lambda device: two)
    fitted = recipe.model_copy(update={"machine": fit_machine(needs(recipe, checkpoint), recipe.machine, None)})
    assert fitted.machine.chosen(key) == 2  # type: ignore[arg-type]
    weights, records = train(fitted)
    whole, expected = train(change(recipe, **{key: 4, "decoding_batch": 4}))
    start, _ = train(change(recipe, **{key: 4, "decoding_batch": 4}, learning_rate=1e-12))
    assert weights.keys() == whole.keys() and len(records) == len(expected)
    moved = max(float((whole[name] - value).abs().max()) for name, value in start.items())
    distance = max(float((whole[name] - value).abs().max()) for name, value in weights.items())
    assert moved > 1e-3 and distance < 0.01 * moved
    for record, other in zip(records, expected, strict=True):
        assert record == pytest.approx(other, rel=1e-3, abs=1e-4)
