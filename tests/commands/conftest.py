"""A project with a small checkpoint and an adapter, for the commands that caption."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from captioning.base.hashes import file_hashes

ROOT = Path(__file__).parents[2]
LIMIT = 9  # tokens
ADAPTER = "mix-1"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path, adapted: Callable[..., Any]) -> Path:
    """A project with a checkpoint and an adapter whose captions differ from it."""
    from captioning.adapters.card import model_card
    from captioning.adapters.lora import count_parameters, save_adapter
    from tests.helpers.small_recipes import variant_recipe

    monkeypatch.chdir(tmp_path)
    start = tmp_path / "models/checkpoints/mix"
    shutil.copytree(checkpoint, start)
    hashes = file_hashes(start)
    start.with_name("mix.json").write_text(json.dumps(hashes))
    params = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for old, new in {
        "maximum_tokens: 40": f"maximum_tokens: {LIMIT}",
        "decoding_batch: 64": "decoding_batch: 3",
    }.items():
        assert old in params
        params = params.replace(old, new)
    (tmp_path / "params.yaml").write_text(params, encoding="utf-8")
    recipe = variant_recipe(files=hashes, decoding_batch=3, dequantise=True)
    (tmp_path / "data/recipes").mkdir(parents=True)
    (tmp_path / "data/recipes/mix.json").write_text(recipe.model_dump_json())
    model = adapted(strength=0.3)
    save_adapter(model, tmp_path / "models/adapters" / ADAPTER, model_card(ADAPTER, recipe, count_parameters(model)))
    return tmp_path
