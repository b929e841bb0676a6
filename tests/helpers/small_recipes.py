"""Recipes of small trainings, and how a test changes one."""

from typing import TypeVar

from captioning.params.recipe import Recipe, ScstRecipe, VariantRecipe

R = TypeVar("R", bound=Recipe)
SHARED = {
    "checkpoint": {"name": "mix", "origin": "miniature", "files": {}},
    "lora": {"rank": 4, "alpha": 8.0, "dropout": 0.0, "rslora": False, "targets": "table2"},
    "machine": {
        "device": "cpu",
        "threads": 1,
        "instructions": "native",
        "compute": "float32",
        "training_rows": 2,
        "scst_images": 4,
        "decoding_batch": 8,
        "dequantise": False,
        "optimizer": "adamw",
    },
    "launch": {"processes": 1},
}
FINETUNE = {
    "prompt": "caption en",
    "captions": "first",
    "batch": 2,
    "accumulation": 1,
    "epochs": 2,
    "learning_rate": 5e-3,
    "minimum_steps": 0,
    "weight_decay": 0.0,
    "scheduler": "constant",
    "warmup": 0.0,
    "gradient_clip": 1.0,
    "lora_plus": 1.0,
}
SCST = {
    "start": "mix",
    "baseline": "greedy",
    "prompt": "caption en",
    "maximum_tokens": 16,
    "batch": 4,
    "samples": 5,
    "epochs": 6,
    "images": 4,
    "validation_images": 4,
    "learning_rate": 3e-3,
    "weight_decay": 0.0,
    "gradient_clip": 1.0,
    "validate_every": 3,
    "scheduler": "constant",
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "kl": 0.0,
}


def variant_recipe(**changes: object) -> VariantRecipe:
    """Return the recipe of a supervised training of a few steps, with `changes` as in `change`."""
    return change(VariantRecipe.model_validate({"variant": "mix", "finetune": FINETUNE} | SHARED), **changes)


def scst_recipe(**changes: object) -> ScstRecipe:
    """Return the recipe of a refinement of a few steps, with `changes` as in `change`."""
    return change(ScstRecipe.model_validate({"variant": "scst-mix-greedy", "scst": SCST} | SHARED), **changes)


def change(recipe: R, **changes: object) -> R:
    """Return a copy with the values of `changes`, each in the section that has its name."""
    sections = recipe.model_dump()
    for name, value in changes.items():
        holders = [sections, *(values for values in sections.values() if isinstance(values, dict))]
        (holder,) = [values for values in holders if name in values]
        holder[name] = value
    return type(recipe).model_validate(sections)
