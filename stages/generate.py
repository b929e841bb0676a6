"""Greedy captions of the test images by one model: a bare checkpoint, or a checkpoint with an adapter."""

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from captioning.adapters.lora import load_adapter
from captioning.base.files import write_text
from captioning.compute.processes import device_folder, start_processes, visible_device
from captioning.compute.seeds import seed_everything
from captioning.decoding import greedy_captions
from captioning.images.table import read_ids, read_images
from captioning.limits.sizes import fit_generation
from captioning.paligemma.model import load_frozen, load_processor
from captioning.params.load import load_params
from captioning.params.recipe import open_checkpoint, read_any_recipe
from captioning.runtime.resume import Results, exclusive_run_folder
from captioning.runtime.stage import stage_main


@stage_main
def main() -> None:
    arguments, params = parse_arguments(), load_params()
    machine, prompt, limit = params.active.machine, params.finetune.prompt, params.decoding.maximum_tokens
    if (processes := start_processes(params.launch.processes, machine.device)) is None:
        return
    seed_everything(0, processes.threads(machine.threads))
    recipe = read_any_recipe(arguments.recipe) if arguments.recipe else None
    device, lora = visible_device(machine.device), recipe.lora if recipe else None
    checkpoint = open_checkpoint(recipe.checkpoint) if recipe else arguments.checkpoint
    machine = fit_generation(checkpoint, prompt, limit, machine, device, lora, processes)
    ids, size = read_ids(Path("data/splits/captioned.txt")), machine.chosen("decoding_batch")
    frozen, processor = load_frozen(checkpoint, machine.compute, device, machine.dequantise), load_processor(checkpoint)
    model = load_adapter(frozen, arguments.adapter) if arguments.adapter else frozen
    images = [example.image for example in read_images(Path("data/captions/images.parquet"), ids)]
    batches = processes.share([images[begin : begin + size] for begin in range(0, len(images), size)])
    caption = partial(greedy_captions, model, processor, prompt=prompt, maximum_tokens=limit, batch=size)
    with exclusive_run_folder(processes.is_main, processes.wait) as folder:
        results = Results(device_folder(folder, model.device) / f"{processes.rank}-{size}.jsonl")
        results.map(batches, lambda batch: [asdict(text) for text in caption(batch)], "batches")
        captions = [text for batch in processes.gather_in_order(results.results) for text in batch]
    if processes.is_main:
        rows = [{"id": id_, "caption": text.pop("text"), **text} for id_, text in zip(ids, captions, strict=True)]
        write_text(arguments.out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--checkpoint", type=Path, help="a checkpoint folder, as it is")
    start.add_argument("--recipe", type=Path, help="a recipe, for its checkpoint")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
