"""Recipes: everything the training of one row depends on, from params.yaml and the checkpoints' hashes.

Which rows there are is said here as well, since outputs depend on it: params.yaml's values reach DVC by `params:`, but
what is made of them is code.
"""

from itertools import product
from pathlib import Path
from typing import Any

from captioning.base.json_files import read_json
from captioning.params.load import Params


def refined_rows(params: Params) -> dict[str, tuple[str, str]]:
    """SCST's rows: what each starts from, against which baseline."""
    pairs = product(params.scst.starts, params.scst.baselines)
    return {f"scst-{start}-{baseline}": (start, baseline) for start, baseline in pairs}


def starting_checkpoints(params: Params) -> set[str]:
    """The checkpoints that some row starts from."""
    return {*params.zero_shot, *(params.variants[row].checkpoint for row in params.rows)}


def make_recipes(params: Params) -> dict[str, dict[str, Any]]:
    """The recipe of every row that is trained."""
    refined = refined_rows(params).items()
    return {name: variant_recipe(params, name) for name in params.rows} | {
        row: scst_recipe(params, row, start, baseline) for row, (start, baseline) in refined
    }


def variant_recipe(params: Params, name: str) -> dict[str, Any]:
    """`lora` and `finetune` with the profile's and the variant's own values on top."""
    variant = params.variants[name].model_dump(exclude_none=True)
    checkpoint, profile = variant.pop("checkpoint"), params.active.finetune
    rate = profile.learning_rates.get(name, profile.learning_rate)
    sections = {
        "lora": params.lora.model_dump(),
        "finetune": params.finetune.model_dump() | {"learning_rate": rate},
    }
    merged = {
        section: {key: variant.get(key, value) for key, value in values.items()} for section, values in sections.items()
    }
    files = read_json(Path(f"models/checkpoints/{checkpoint}.json"))
    return {
        "variant": name,
        "checkpoint": {"name": checkpoint, "origin": params.active.checkpoints.origin, "files": files},
        **merged,
        **machine(params),
    }


def scst_recipe(params: Params, row: str, name: str, baseline: str) -> dict[str, Any]:
    """The `scst` sections merged, with the checkpoint, adapter and prompt of the variant `name` that is refined.

    The learning rate is divided by the factor with which that adapter's B A is added. Adam moves A and B by its rate
    whatever their gradient, so that one rate means one step of the weights, from any start.
    """
    start = variant_recipe(params, name)
    settings = params.scst.model_dump(exclude={"starts", "baselines"}) | params.active.scst.model_dump()
    return {
        "variant": row,
        "checkpoint": start["checkpoint"],
        "lora": start["lora"],
        "scst": settings
        | {
            "learning_rate": settings["learning_rate"] / scaling(start["lora"]),
            "start": name,
            "baseline": baseline,
            "prompt": start["finetune"]["prompt"],
            "maximum_tokens": params.decoding.maximum_tokens,
        },
        **machine(params),
    }


def scaling(lora: dict[str, Any]) -> float:
    """What an adapter's B A is multiplied by: alpha / rank, or alpha / sqrt(rank) if rank-stabilised
    (Kalajdzievski 2023, arXiv:2312.03732)."""
    return float(lora["alpha"] / (lora["rank"] ** 0.5 if lora["rslora"] else lora["rank"]))


def machine(params: Params) -> dict[str, Any]:
    """Where it runs: device, dtype, threads, processes and batch of decoding change the last digits."""
    return {"machine": params.active.machine.model_dump(), "launch": params.launch.model_dump()}
