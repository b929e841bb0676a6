"""Write the recipe of each trained row: settings of profile and variant merged, and the checkpoint's hashes."""

from pathlib import Path

from captioning.base.files import atomic_folder, write_json
from captioning.params.load import load_params
from captioning.params.recipes import make_recipes
from captioning.runtime.paths import fetched_folder, remove_downloads
from captioning.runtime.stage import stage_main

FOLDER = Path("data/recipes")


@stage_main
def main() -> None:
    recipes = make_recipes(load_params())
    with atomic_folder(FOLDER) as folder:
        for name, recipe in recipes.items():
            write_json(folder / f"{name}.json", recipe.model_dump(), sort_keys=True)
    remove_downloads(fetched_folder())  # by now, DVC has recorded the checkpoints


if __name__ == "__main__":
    main()
