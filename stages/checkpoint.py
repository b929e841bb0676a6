"""Fetch a starting checkpoint, or pre-train it in the miniature; write only `unused.txt` if no row starts from it."""

import sys
from pathlib import Path
from typing import Any

from captioning.base.files import atomic_folder, write_json, write_text
from captioning.base.hashes import file_hashes
from captioning.checkpoints.fetch import fetch_checkpoint
from captioning.data.tags import read_tagged, read_words
from captioning.params.load import load_params
from captioning.params.sections import Params
from captioning.runtime.paths import fetched_folder
from captioning.runtime.resume import exclusive_run_folder
from captioning.runtime.stage import command, stage_main

FOLDER = Path("models/checkpoints")


@stage_main
def main(name: str) -> None:
    params = load_params()
    settings = getattr(checkpoints := params.active.checkpoints, name.replace("-", "_"))
    is_wanted = Path(f"data/wanted/{name}.txt").read_text(encoding="utf-8") != "no\n"
    is_trained = is_wanted and checkpoints.origin == "miniature"
    if (trained := pretrain(params, name, settings) if is_trained else ()) is None:
        return
    with atomic_folder(FOLDER / name) as partial:
        for part in trained:
            part.save_pretrained(partial)
        if not is_wanted:
            remark = f"{name}: no row starts from it\n"
            write_text(partial / "unused.txt", remark)
            sys.stderr.write(remark)
        elif not is_trained:
            fetch_checkpoint(checkpoints.origin, settings.repository, settings.revision, partial, fetched_folder(name))
    write_json(FOLDER / f"{name}.json", file_hashes(FOLDER / name) if is_wanted else {})


def pretrain(params: Params, name: str, settings: Any) -> tuple[Any, Any] | None:
    """Pre-train a miniature checkpoint; return its parts, or None in all processes but the main one."""
    from captioning.checkpoints.miniature import NEW_CHECKPOINTS, start_checkpoint
    from captioning.checkpoints.pretraining import train_checkpoint
    from captioning.compute.processes import start_processes
    from captioning.compute.seeds import seed_everything
    from captioning.training.run import TrainingRun

    if (processes := start_processes(getattr(settings, "processes", 1), "cpu")) is None:
        return None
    seed_everything(seed := params.data.seed, params.active.machine.threads)
    words = read_words(Path("data/words.txt")) if name in NEW_CHECKPOINTS else {}
    start = start_checkpoint(name, words, params.data.image_size, settings, FOLDER / "base")
    with exclusive_run_folder(processes.is_main, processes.wait) as folder:
        run = TrainingRun(seed, "cpu", folder, processes, params.resume.state_interval)
        train_checkpoint(*start, name, list(words), settings, run, read_tagged(Path("data/tags/images.parquet")))
    return start if processes.is_main else None


if __name__ == "__main__":
    command(main)
