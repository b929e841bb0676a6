"""Write the model card of an adapter in the Hub's format, and read the recipe in one."""

import json
import re
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from captioning.base.errors import UserError
from captioning.params.faults import describe_faults
from captioning.params.recipe import ANY, AnyRecipe, ScstRecipe

TEMPLATE = Path(__file__).with_name("card.md")
RECIPE = re.compile(r"^## Recipe\n\n```json\n(.*?)\n```", re.DOTALL | re.MULTILINE)
MADE_WITH = ("torch", "transformers", "peft", "bitsandbytes")
MODELS = {"miniature": "the miniature, a model of 1.7 million weights that is not PaliGemma-3B"}


def model_card(name: str, recipe: AnyRecipe, counts: dict[str, float]) -> str:
    """Return the card as Markdown; `counts` are those of `lora.count_parameters`."""
    return TEMPLATE.read_text(encoding="utf-8").format(
        name=name,
        checkpoint=recipe.checkpoint.name,
        trainable=int(counts["trainable_parameters"]),
        share=counts["share"],
        recipe=json.dumps(recipe.model_dump(), indent=1, sort_keys=True),
        model=MODELS.get(recipe.checkpoint.origin, "PaliGemma"),
        prompt=recipe.prompt,
        versions=", ".join(f"{package} {version(package).partition('+')[0]}" for package in MADE_WITH),
        refined=", refined by self-critical sequence training on CIDEr-D" if isinstance(recipe, ScstRecipe) else "",
    )


def extract_recipe(card: str) -> AnyRecipe | None:
    """Return the recipe that `model_card` wrote, or None. Raises `UserError` if it is damaged or of another version."""
    block = RECIPE.search(card)
    try:
        return ANY.validate_json(block[1]) if block else None
    except ValidationError as error:
        raise UserError(f"its recipe is damaged or of another version: {describe_faults(error)[0]}") from None
