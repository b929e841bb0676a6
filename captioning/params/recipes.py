"""Make the recipes of all rows from params.yaml and the checkpoints' hashes.

DVC watches the values through `params:`. How they are combined is code, which a stage has to list: it is here alone.
"""

from itertools import product
from pathlib import Path

from captioning.base.json_files import read_json
from captioning.params.recipe import (
    AnyRecipe,
    FinetuneSettings,
    ScstRecipe,
    ScstSettings,
    StartCheckpoint,
    VariantRecipe,
)
from captioning.params.sections import HubCheckpoints, Lora, Params


def refined_rows(params: Params) -> dict[str, tuple[str, str]]:
    """Return the start and the baseline of each row of SCST."""
    pairs = product(params.scst.starts, params.scst.baselines)
    return {f"scst-{start}-{baseline}": (start, baseline) for start, baseline in pairs}


def starting_checkpoints(params: Params) -> set[str]:
    return {*params.zero_shot, *(params.variants[row].checkpoint for row in params.rows)}


def required_checkpoints(params: Params) -> set[str]:
    """Return the checkpoints that rows start from, and in the miniature also `base`, from which most are made."""
    starts, is_miniature = starting_checkpoints(params), not isinstance(params.active.checkpoints, HubCheckpoints)
    return starts | ({"base"} if is_miniature and starts - {"paligemma2"} else set())


def make_recipes(params: Params) -> dict[str, AnyRecipe]:
    refined = refined_rows(params).items()
    return {name: variant_recipe(params, name) for name in params.rows} | {
        row: scst_recipe(params, row, start, baseline) for row, (start, baseline) in refined
    }


def variant_recipe(params: Params, name: str) -> VariantRecipe:
    """Return the recipe of a variant: `lora` and `finetune`, with the changes of the profile and the variant."""
    variant, profile = params.variants[name], params.active.finetune
    changes = variant.model_dump(exclude_none=True)
    rate = changes.get("learning_rate", profile.learning_rates.get(name, profile.learning_rate))
    finetune = params.finetune.model_dump() | profile.model_dump(exclude={"learning_rates"}) | {"learning_rate": rate}
    return VariantRecipe(
        variant=name,
        checkpoint=StartCheckpoint(
            name=variant.checkpoint,
            origin="miniature" if params.active.checkpoints.origin == "miniature" else "published",
            files=read_json(Path(f"models/checkpoints/{variant.checkpoint}.json")),
        ),
        lora=Lora(**{key: changes.get(key, value) for key, value in params.lora.model_dump().items()}),
        finetune=FinetuneSettings(**{key: changes.get(key, value) for key, value in finetune.items()}),
        machine=params.active.machine,
        launch=params.launch,
    )


def scst_recipe(params: Params, row: str, start: str, baseline: str) -> ScstRecipe:
    """Return the recipe of a row that refines the variant `start`, with the checkpoint and prompt of that variant.

    The learning rate is divided by the scaling of that adapter: Adam moves A and B by the learning rate, whatever their
    gradient, so every start then has the same step size of the weights.
    """
    variant = variant_recipe(params, start)
    settings = params.scst.model_dump(exclude={"starts", "baselines"}) | params.active.scst.model_dump()
    settings["learning_rate"] /= scaling(variant.lora)
    return ScstRecipe(
        variant=row,
        checkpoint=variant.checkpoint,
        lora=variant.lora,
        scst=ScstSettings(
            **settings,
            start=start,
            baseline=baseline,  # type: ignore[arg-type]  # of params.scst.baselines
            prompt=variant.prompt,
            maximum_tokens=params.decoding.maximum_tokens,
        ),
        machine=variant.machine,
        launch=variant.launch,
    )


def scaling(lora: Lora) -> float:
    """Return the factor of an adapter's B A; for rank-stabilised ones that of Kalajdzievski 2023, arXiv:2312.03732."""
    return lora.alpha / (lora.rank**0.5 if lora.rslora else lora.rank)
