"""The model card: front matter that the Hub reads, counts, and a recipe that can be read back."""

from importlib.metadata import version

import pytest
from ruamel.yaml import YAML

from captioning.adapters.card import extract_recipe, model_card
from captioning.params.recipe import AnyRecipe
from tests.helpers.small_recipes import change, scst_recipe, variant_recipe

COUNTS = {"trainable_parameters": 22597632, "all_parameters": 2946064112, "share": 0.7670448144001558}


@pytest.mark.parametrize("recipe", [variant_recipe(), scst_recipe(prompt="describe en")])
def test_the_card_describes_the_adapter(recipe: AnyRecipe) -> None:
    card = model_card("mix-1", recipe, COUNTS)
    opening, front, text = card.split("---\n", 2)
    assert opening == ""
    matter = YAML(typ="safe").load(front)
    assert (matter["library_name"], matter["pipeline_tag"]) == ("peft", "image-to-text")
    assert "paligemma" in matter["tags"]
    assert "\n# mix-1\n" in text
    assert "22,597,632 trainable parameters, 0.7670 %" in text
    assert "`mix`" in text and "--model mix-1" in text
    versions = [
        f"{name} {version(name).partition('+')[0]}" for name in ("torch", "transformers", "peft", "bitsandbytes")
    ]
    assert f"* Made with {', '.join(versions)}.\n" in text
    assert f"`<image>{recipe.prompt}`" in text
    assert ("self-critical sequence training" in text) is ("scst" in recipe.model_dump())
    assert extract_recipe(card) == recipe


@pytest.mark.parametrize(("origin", "is_miniature"), [("miniature", True), ("published", False)])
def test_a_miniature_is_not_called_paligemma(origin: str, is_miniature: bool) -> None:
    text = model_card("mix-1", change(variant_recipe(), origin=origin), COUNTS).split("## Recipe")[0]
    assert ("the miniature, a model of 1.7 million weights that is not PaliGemma-3B" in text) is is_miniature
    assert ("A LoRA adapter for PaliGemma," in text) is not is_miniature
