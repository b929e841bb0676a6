"""One checkpoint to start from: fetched, or in the miniature pre-trained on the spot; an empty folder where no row
starts from it."""

import sys
from pathlib import Path
from typing import Any

from captioning.base.files import atomic_folder, write_json
from captioning.base.hashes import file_hashes
from captioning.base.paths import FETCHED
from captioning.checkpoints.fetch import fetch_checkpoint
from captioning.params.load import Params, load_params
from captioning.runtime.resume import exclusive_run_folder
from captioning.runtime.stage import command, stage_main

FOLDER = Path("models/checkpoints")
NEW = {"base": "gemma", "paligemma2": "gemma2"}  # pre-trained from nothing: the decoder of each


@stage_main
def main(name: str) -> None:
    params = load_params()
    checkpoints, folder = params.active.checkpoints, FOLDER / name
    settings = getattr(checkpoints, name.replace("-", "_"))
    if Path(f"data/wanted/{name}.txt").read_text(encoding="utf-8") == "no\n":
        with atomic_folder(folder):
            print(f"{name}: no row starts from it", file=sys.stderr)
    elif checkpoints.origin == "miniature":
        if not pretrain(params, name, settings, folder):
            return
    else:
        with atomic_folder(folder) as partial:
            fetch_checkpoint(checkpoints.origin, settings.repository, settings.revision, partial, FETCHED / name)
    write_json(FOLDER / f"{name}.json", file_hashes(folder))


def pretrain(params: Params, name: str, settings: Any, out: Path) -> bool:
    """Make a miniature checkpoint: base and paligemma2 from nothing and alike, the others from base. False in a process
    that does not speak for all that make it."""
    from captioning.checkpoints import miniature, pretraining
    from captioning.compute.processes import start_processes
    from captioning.compute.seeds import seed_everything
    from captioning.training.run import TrainingRun

    new, seed, size = name in NEW, params.data.seed, params.data.image_size
    processes = start_processes(settings.processes if new else 1, "cpu")
    if processes is None:
        return False
    seed_everything(seed, params.active.machine.threads)
    words = Path("data/words.txt").read_text(encoding="utf-8").split("\n")[:-1] if new else []
    if new:
        model, processor = miniature.make_checkpoint(words, size, NEW[name])
    else:
        model, processor = miniature.load_checkpoint(FOLDER / "base")
    scenes, pictures = pretraining.draw_images(settings.images, size, f"{name} {seed}")
    pixels = pretraining.pixel_values(processor, pictures)
    with exclusive_run_folder(processes.is_main, processes.wait) as folder:
        run = TrainingRun(seed, "cpu", folder, processes, params.resume.every)
        if new:
            pretraining.train_tower(model, pixels, scenes, settings.tower_epochs, settings.tower_learning_rate, run)
        texts = pretraining.Texts("base" if new else name, scenes, words, settings.epochs)
        pretraining.train_decoder(model, processor, pixels, texts, settings.learning_rate, run)
    if processes.is_main:
        with atomic_folder(out) as partial:
            model.save_pretrained(partial, safe_serialization=True)
            processor.save_pretrained(partial)
    return processes.is_main


if __name__ == "__main__":
    command(main)
