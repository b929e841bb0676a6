"""One JSON a variant with everything its training depends on: profile, defaults and deltas merged, checkpoint
hashed."""

import shutil
from pathlib import Path
from typing import Any

from captioning.checkpoints import FETCHED
from captioning.outputs import whole_folder, write_json
from captioning.params import Params, load_params
from captioning.plain_json import read_json
from captioning.stage import stage_main

FOLDER = Path("data/recipes")


def variant_recipe(params: Params, name: str) -> dict[str, Any]:
    """`lora` and `finetune` with the profile's and the variant's own values on top."""
    variant = params.variants[name].model_dump(exclude_none=True)
    checkpoint, own = variant.pop("checkpoint"), params.active.finetune
    rate = own.learning_rates.get(name, own.learning_rate)
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
    """The `scst` sections merged, with the checkpoint, adapter and prompt of the variant `name` that is refined."""
    start = variant_recipe(params, name)
    return {
        "variant": row,
        "checkpoint": start["checkpoint"],
        "lora": start["lora"],
        "scst": params.scst.model_dump(exclude={"starts", "baselines"})
        | params.active.scst.model_dump()
        | {
            "start": name,
            "baseline": baseline,
            "prompt": start["finetune"]["prompt"],
            "compute": start["finetune"]["compute"],
            "maximum_tokens": params.decoding.maximum_tokens,
        },
        **machine(params),
    }


def machine(params: Params) -> dict[str, Any]:
    """Where it runs: device, threads, processes and batch of decoding change the last digits."""
    return {"machine": params.active.machine.model_dump(), "launch": params.launch.model_dump()}


@stage_main
def main() -> None:
    params = load_params()
    recipes = {name: variant_recipe(params, name) for name in params.rows}
    recipes |= {row: scst_recipe(params, row, *pair) for row, pair in params.refined.items()}
    with whole_folder(FOLDER) as out:
        for name, recipe in recipes.items():
            write_json(out / f"{name}.json", recipe, sort_keys=True)
    shutil.rmtree(FETCHED, ignore_errors=True)  # DVC has recorded the checkpoints by now


if __name__ == "__main__":
    main()
