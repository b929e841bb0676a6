"""Fetch a starting checkpoint, or pre-train it in the miniature; write an empty folder if no row starts from it."""

import sys
from pathlib import Path
from typing import Any

from captioning.base.files import atomic_folder, write_json
from captioning.base.hashes import file_hashes
from captioning.checkpoints.fetch import fetch_checkpoint
from captioning.params.load import load_params
from captioning.params.sections import Params
from captioning.runtime.paths import FETCHED
from captioning.runtime.resume import exclusive_run_folder
from captioning.runtime.stage import command, stage_main

FOLDER = Path("models/checkpoints")
DECODERS = {"base": "gemma", "paligemma2": "gemma2"}  # checkpoints with fresh weights; others start from base


@stage_main
def main(name: str) -> None:
    params = load_params()
    settings = getattr(checkpoints := params.active.checkpoints, name.replace("-", "_"))
    if Path(f"data/wanted/{name}.txt").read_text(encoding="utf-8") == "no\n":
        with atomic_folder(FOLDER / name):
            print(f"{name}: no row starts from it", file=sys.stderr)
    elif checkpoints.origin == "miniature":
        if (trained := pretrain(params, name, settings)) is None:
            return
        with atomic_folder(FOLDER / name) as partial:
            for part in trained:
                part.save_pretrained(partial)
    else:
        with atomic_folder(FOLDER / name) as partial:
            fetch_checkpoint(checkpoints.origin, settings.repository, settings.revision, partial, FETCHED / name)
    write_json(FOLDER / f"{name}.json", file_hashes(FOLDER / name))


def pretrain(params: Params, name: str, settings: Any) -> tuple[Any, Any] | None:
    """Pre-train a miniature checkpoint; return model and processor, or None in all processes but the main one."""
    from captioning.checkpoints.miniature import load_checkpoint, make_checkpoint
    from captioning.checkpoints.pretraining import train_checkpoint
    from captioning.compute.processes import start_processes
    from captioning.compute.seeds import seed_everything
    from captioning.training.run import TrainingRun

    is_new, data = name in DECODERS, params.data
    if (processes := start_processes(settings.processes if is_new else 1, "cpu")) is None:
        return None
    seed_everything(data.seed, params.active.machine.threads)
    words = Path("data/words.txt").read_text(encoding="utf-8").split("\n")[:-1] if is_new else []
    start = make_checkpoint(words, data.image_size, DECODERS[name]) if is_new else load_checkpoint(FOLDER / "base")
    with exclusive_run_folder(processes.is_main, processes.wait) as folder:
        run = TrainingRun(data.seed, "cpu", folder, processes, params.resume.state_interval)
        train_checkpoint(*start, name, words, settings, run)
    return start if processes.is_main else None


if __name__ == "__main__":
    command(main)
