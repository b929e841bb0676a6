"""Greedy captions of the test images by one model: a bare checkpoint, or a checkpoint with an adapter."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from captioning.adapters.lora import load_adapter
from captioning.base.files import write_text
from captioning.base.hashes import require_hashes
from captioning.base.json_files import read_map
from captioning.compute.processes import device_folder, start_processes, visible_device
from captioning.compute.seeds import seed_everything
from captioning.decoding import greedy_captions
from captioning.images.table import read_ids, read_images
from captioning.limits.memory import generation_needs, require
from captioning.paligemma.model import load_frozen, load_processor
from captioning.params.load import load_params
from captioning.runtime import inputs
from captioning.runtime.resume import Results, exclusive_run_folder
from captioning.runtime.stage import stage_main


@stage_main
def main() -> None:
    arguments = parse()
    params = load_params()
    machine, settings, maximum_tokens = params.active.machine, params.finetune, params.decoding.maximum_tokens
    processes = start_processes(params.launch.processes, machine.device)
    if processes is None:
        return
    seed_everything(0, processes.threads(machine.threads))
    checkpoint, device, lora = arguments.checkpoint, visible_device(machine.device), None
    if arguments.recipe:
        recipe = read_map(arguments.recipe, "checkpoint", "lora")
        checkpoint, lora = Path("models/checkpoints") / recipe["checkpoint"]["name"], recipe["lora"]
        inputs.watch(checkpoint)
        require_hashes(checkpoint, recipe["checkpoint"]["files"])
    what, own = (settings.prompt, machine.compute, maximum_tokens), machine.model_dump()
    require(generation_needs(checkpoint, *what, own, device, lora), own)
    ids = read_ids(Path("data/splits/test.txt"))
    model = load_frozen(checkpoint, machine.compute, device, machine.dequantise)
    if arguments.adapter:
        model = load_adapter(model, arguments.adapter)
    images = [one.image for one in read_images(Path("data/captions/images.parquet"), ids)]
    batches = [
        images[begin : begin + machine.decoding_batch] for begin in range(0, len(images), machine.decoding_batch)
    ]
    processor, mine = load_processor(checkpoint), processes.share(batches)

    def caption(batch: list[bytes]) -> list[dict[str, Any]]:
        said = greedy_captions(model, processor, batch, settings.prompt, maximum_tokens, len(batch))
        return [asdict(one) for one in said]

    with exclusive_run_folder(processes.is_main, processes.wait) as scratch:
        there = Results(device_folder(scratch, model.device) / f"{processes.rank}.jsonl")
        said = there.map(mine, caption, "batches")
        captions = [one for of_batch in processes.gather_in_order(said) for one in of_batch]
    if not processes.is_main:
        return
    rows = [{"id": id_, "caption": one.pop("text"), **one} for id_, one in zip(ids, captions, strict=True)]
    write_text(arguments.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--checkpoint", type=Path, help="a checkpoint folder, as it is")
    start.add_argument("--recipe", type=Path, help="a recipe, for its checkpoint")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
