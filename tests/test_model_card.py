"""The model card: front matter the Hub reads, counts as given, a recipe that parses back."""

import json
import re

from ruamel.yaml import YAML

from captioning.model_card import model_card

RECIPE = {
    "variant": "mix",
    "checkpoint": {"name": "mix", "files": {"config.json": "ab" * 32}},
    "lora": {"rank": 16, "alpha": 8.0},
    "finetune": {"prompt": "caption en"},
}
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
    assert json.loads(block[1]) == RECIPE


def test_a_refined_adapter_says_so() -> None:
    assert "refined by self-critical sequence training" in model_card("scst-1", RECIPE | {"scst": {}}, COUNTS)
