"""One JSON a variant with everything its training depends on: profile, defaults and deltas merged, checkpoint
hashed."""

import shutil
from pathlib import Path

from captioning.base.files import atomic_folder, write_json
from captioning.base.paths import FETCHED
from captioning.params.load import load_params
from captioning.params.recipes import make_recipes
from captioning.runtime.stage import stage_main

FOLDER = Path("data/recipes")


@stage_main
def main() -> None:
    made = make_recipes(load_params())
    with atomic_folder(FOLDER) as out:
        for name, recipe in made.items():
            write_json(out / f"{name}.json", recipe, sort_keys=True)
    shutil.rmtree(FETCHED, ignore_errors=True)  # DVC has recorded the checkpoints by now


if __name__ == "__main__":
    main()
