"""Recipes: every row has one, and SCST's learning rate is divided by the factor that peft multiplies an adapter by."""

import json
from pathlib import Path
from typing import Any

import pytest

from captioning.params.load import load_params
from captioning.params.recipes import make_recipes, refined_rows, scaling, starting_checkpoints
from captioning.params.sections import Lora

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that makes the recipes of params.yaml with other `starts` of SCST."""
    (tmp_path / "models/checkpoints").mkdir(parents=True)
    for name in starting_checkpoints(PARAMS):
        (tmp_path / f"models/checkpoints/{name}.json").write_text(json.dumps({"config.json": name}))
    monkeypatch.chdir(tmp_path)
    scst = PARAMS.scst
    return lambda starts: make_recipes(PARAMS.model_copy(update={"scst": scst.model_copy(update={"starts": starts})}))


def test_every_row_has_a_recipe(recipes: Any) -> None:
    assert list(recipes(["mix"])) == [*PARAMS.rows, *refined_rows(PARAMS)]
    assert refined_rows(PARAMS)["scst-mix-leave-one-out"] == ("mix", "leave-one-out")
    assert starting_checkpoints(PARAMS) == {"base", "mix", "cococap", "rsvqa-lr"}


def test_step_of_the_weights_is_equal_for_every_start(recipes: Any) -> None:
    """mix adds B A once; the rank-stabilised row adds it 32 / sqrt(16) times."""
    rows = recipes(["mix", "rslora"])
    rate = PARAMS.active.scst.learning_rate
    assert rows["scst-mix-greedy"].scst.learning_rate == rate
    assert rows["scst-rslora-greedy"].scst.learning_rate == rate / 8


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize(("rank", "alpha"), [(4, 8.0), (16, 32.0), (9, 2.0)])
def test_scaling_equals_pefts(rank: int, alpha: float, rslora: bool) -> None:
    import torch
    from peft import LoraConfig, inject_adapter_in_model

    layer = torch.nn.Sequential(torch.nn.Linear(4, 4))
    config = LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rslora, target_modules=["0"])  # type: ignore[arg-type]
    adapted: Any = inject_adapter_in_model(config, layer)[0]
    assert adapted.scaling["default"] == pytest.approx(
        scaling(Lora(rank=rank, alpha=alpha, dropout=0.0, rslora=rslora, targets="table2"))
    )
