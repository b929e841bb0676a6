"""The model card of an adapter: what it was made from and how, in the Hub's format."""

import json
import re

from pydantic import ValidationError

from captioning.params.recipe import ANY, AnyRecipe, ScstRecipe

CARD = """---
library_name: peft
pipeline_tag: image-to-text
tags: [paligemma, qlora, remote-sensing, image-captioning]
---

# {name}

A LoRA adapter for {model}, trained for captions of overhead images{refined}.

* Starts from the checkpoint `{checkpoint}`; SHA-256 of each of its files stands in the recipe below.
* {trainable:,} trainable parameters, {share:.4f} % of all with the adapter.
* Prompt: `<image>{prompt}` through `PaliGemmaProcessor`, which adds `<bos>` and the newline.
* The decoder was quantised to NF4 with double quantisation while this was trained.

```python
from peft import PeftModel
from transformers import PaliGemmaForConditionalGeneration

model = PaliGemmaForConditionalGeneration.from_pretrained("models/checkpoints/{checkpoint}")
model = PeftModel.from_pretrained(model, "models/adapters/{name}")
```

## Recipe

```json
{recipe}
```
"""


RECIPE = re.compile(r"^## Recipe\n\n```json\n(.*?)\n```", re.DOTALL | re.MULTILINE)
MODELS = {"miniature": "the miniature, a model of two million weights that is not PaliGemma-3B"}


def model_card(name: str, recipe: AnyRecipe, counts: dict[str, float]) -> str:
    """Return the card as Markdown; `counts` are those of `lora.count_parameters`."""
    return CARD.format(
        name=name,
        checkpoint=recipe.checkpoint.name,
        trainable=int(counts["trainable_parameters"]),
        share=counts["share"],
        recipe=json.dumps(recipe.model_dump(), indent=1, sort_keys=True),
        model=MODELS.get(recipe.checkpoint.origin, "PaliGemma"),
        prompt=recipe.prompt,
        refined=", refined by self-critical sequence training on CIDEr-D" if isinstance(recipe, ScstRecipe) else "",
    )


def extract_recipe(card: str) -> AnyRecipe | None:
    """Return the recipe that `model_card` wrote into `card`, or None if there is none."""
    block = RECIPE.search(card)
    try:
        return ANY.validate_json(block[1]) if block else None
    except ValidationError:
        return None
