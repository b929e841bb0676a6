"""One checkpoint to start from: fetched, or in the miniature pre-trained on the spot; an empty folder where no row
starts from it."""

import json
import shutil
import sys
from pathlib import Path

from captioning import disk
from captioning.checkpoints import fetch
from captioning.hashes import file_hashes
from captioning.params import Params, load_params
from captioning.runlog import stage_main

FOLDER = Path("models/checkpoints")
NEW = {"base": "gemma", "paligemma2": "gemma2"}  # pre-trained from nothing: the decoder of each
DOWNLOADS = Path(".cache/downloads/checkpoints")  # DVC deletes FOLDER before a run


@stage_main
def main(name: str) -> None:
    params = load_params()
    checkpoints, folder = params.active.checkpoints, FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if Path(f"data/wanted/{name}.txt").read_text(encoding="utf-8") == "no\n":
        print(f"{name}: no row starts from it", file=sys.stderr)
    elif checkpoints.origin == "miniature":
        disk.require(f"checkpoint {name}", disk.checkpoint(folder))
        pretrain(params, name, folder)
    else:
        wanted = getattr(checkpoints, name.replace("-", "_"))
        fetch(checkpoints.origin, wanted.repository, wanted.revision, folder, DOWNLOADS / name)
    (FOLDER / f"{name}.json").write_text(json.dumps(file_hashes(folder), indent=1) + "\n", encoding="utf-8")


def pretrain(params: Params, name: str, folder: Path) -> None:
    """Make a miniature checkpoint: base and paligemma2 from nothing and alike, the others from base."""
    from captioning import miniature, pretraining
    from captioning.training import seed_everything

    seed, size = params.data.seed, params.data.image_size
    wanted = getattr(params.active.checkpoints, name.replace("-", "_"))
    scratch = Path(".cache/checkpoints") / name
    seed_everything(seed, params.active.machine.threads)
    new = name in NEW
    words = Path("data/words.txt").read_text(encoding="utf-8").split("\n")[:-1] if new else []
    if new:
        model, processor = miniature.new_checkpoint(words, size, NEW[name])
    else:
        model, processor = miniature.load_checkpoint(FOLDER / "base")
    scenes, pictures = pretraining.draw_pictures(wanted.images, size, f"{name} {seed}")
    pixels = pretraining.pixel_values(processor, pictures)
    if new:
        pretraining.train_tower(model, pixels, scenes, wanted.tower_epochs, wanted.tower_learning_rate, seed, scratch)
    pretraining.train_decoder(
        model,
        processor,
        pixels,
        scenes,
        words,
        "base" if new else name,
        wanted.epochs,
        wanted.learning_rate,
        seed,
        scratch,
    )
    model.save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)
    shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
