"""The model card: front matter the Hub reads, counts as given, a recipe that parses back."""

import json
import re

import pytest
from ruamel.yaml import YAML

from captioning.adapters.card import extract_recipe, model_card
from captioning.params.recipe import AnyRecipe
from tests.helpers.small_recipes import change, scst_recipe, variant_recipe

RECIPE = variant_recipe()
COUNTS = {"trainable_parameters": 22597632, "all_parameters": 2946064112, "share": 0.7670448144001558}


def test_front_matter_is_the_hubs() -> None:
    opening, front, _ = model_card("mix-1", RECIPE, COUNTS).split("---\n", 2)
    assert opening == ""
    matter = YAML(typ="safe").load(front)
    assert matter["library_name"] == "peft"
    assert matter["pipeline_tag"] == "image-to-text"
    assert "paligemma" in matter["tags"]


def test_counts_and_names() -> None:
    card = model_card("mix-1", RECIPE, COUNTS)
    assert "\n# mix-1\n" in card
    assert "22,597,632 trainable parameters, 0.7670 %" in card
    assert "models/checkpoints/mix" in card
    assert "models/adapters/mix-1" in card
    assert "self-critical" not in card


def test_the_recipe_parses_back() -> None:
    block = re.search(r"```json\n(.*?)\n```", model_card("mix-1", RECIPE, COUNTS), re.DOTALL)
    assert block
    assert json.loads(block[1]) == RECIPE.model_dump()
    assert extract_recipe(model_card("mix-1", RECIPE, COUNTS)) == RECIPE


@pytest.mark.parametrize(
    ("recipe", "prompt"), [(RECIPE, "caption en"), (scst_recipe(prompt="describe en"), "describe en")]
)
def test_the_prompt_is_the_recipes(recipe: AnyRecipe, prompt: str) -> None:
    """As `stages/recipes.py` writes them: a refined adapter's recipe has no `finetune`."""
    text = model_card("any-1", recipe, COUNTS).split("## Recipe")[0]
    assert f"`<image>{prompt}`" in text


@pytest.mark.parametrize(("origin", "miniature"), [("miniature", True), ("hub", False), ("folder", False)])
def test_only_a_miniature_is_said_to_be_no_paligemma(origin: str, miniature: bool) -> None:
    recipe = change(RECIPE, origin=origin)
    text = model_card("mix-1", recipe, COUNTS).split("## Recipe")[0]
    assert ("not PaliGemma-3B" in text) is miniature
    assert ("miniature" in text) is miniature
    assert ("A LoRA adapter for PaliGemma," in text) is not miniature


def test_a_refined_adapter_says_so() -> None:
    assert "refined by self-critical sequence training" in model_card("scst-greedy-1", scst_recipe(), COUNTS)
