"""One checkpoint to start from: fetched, or in the miniature pre-trained on the spot; an empty folder where no row
starts from it."""

import sys
from pathlib import Path
from typing import Any

from captioning import disk
from captioning.checkpoints import FETCHED, fetch
from captioning.hashes import file_hashes
from captioning.outputs import whole_folder, write_json
from captioning.params import Params, load_params
from captioning.resume import workplace
from captioning.stage import command, stage_main

FOLDER = Path("models/checkpoints")
NEW = {"base": "gemma", "paligemma2": "gemma2"}  # pre-trained from nothing: the decoder of each


@stage_main
def main(name: str) -> None:
    params = load_params()
    checkpoints = params.active.checkpoints
    with whole_folder(FOLDER / name) as folder:
        if Path(f"data/wanted/{name}.txt").read_text(encoding="utf-8") == "no\n":
            print(f"{name}: no row starts from it", file=sys.stderr)
        elif checkpoints.origin == "miniature":
            disk.require(f"checkpoint {name}", disk.checkpoint(folder))
            with workplace() as scratch:
                pretrain(params, name, folder, scratch)
        else:
            wanted = getattr(checkpoints, name.replace("-", "_"))
            fetch(checkpoints.origin, wanted.repository, wanted.revision, folder, FETCHED / name)
    write_json(FOLDER / f"{name}.json", file_hashes(FOLDER / name))


def pretrain(params: Params, name: str, folder: Path, scratch: Path) -> None:
    """Make a miniature checkpoint: base and paligemma2 from nothing and alike, the others from base."""
    from captioning import miniature, pretraining
    from captioning.training import seed_everything

    seed, size = params.data.seed, params.data.image_size
    wanted = getattr(params.active.checkpoints, name.replace("-", "_"))
    seed_everything(seed, params.active.machine.pretraining_threads)
    new = name in NEW
    words = Path("data/words.txt").read_text(encoding="utf-8").split("\n")[:-1] if new else []
    if new:
        model, processor = miniature.new_checkpoint(words, size, NEW[name])
    else:
        model, processor = miniature.load_checkpoint(FOLDER / "base")
    scenes, pictures = pretraining.draw_pictures(wanted.images, size, f"{name} {seed}")
    pixels = pretraining.pixel_values(processor, pictures)
    how: dict[str, Any] = {"seed": seed, "scratch": scratch, "every": params.resume.every}
    if new:
        pretraining.train_tower(model, pixels, scenes, wanted.tower_epochs, wanted.tower_learning_rate, **how)
    curriculum, rate = "base" if new else name, wanted.learning_rate
    pretraining.train_decoder(model, processor, pixels, scenes, words, curriculum, wanted.epochs, rate, **how)
    model.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    command(main)
