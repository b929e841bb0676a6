"""Refine a row's adapter with self-critical sequence training against one baseline."""

from pathlib import Path

from captioning.adapters.card import model_card
from captioning.adapters.lora import count_parameters, freeze_encoder, load_adapter, save_adapter
from captioning.base.files import write_json, write_records
from captioning.compute.processes import start_processes, visible_device
from captioning.compute.seeds import seed_everything
from captioning.limits.scst import scst_needs
from captioning.limits.sizes import fit_machine
from captioning.paligemma.model import load_frozen, load_processor
from captioning.params.recipe import ScstRecipe, open_checkpoint, read_recipe
from captioning.runtime.paths import TIMINGS
from captioning.runtime.stage import command, stage_main
from captioning.scst.features import encode_split
from captioning.scst.refine import COLUMNS, refine, summarise
from captioning.scst.scorers import read_scorers
from captioning.scst.trainer import PARTS
from captioning.training.run import open_run


@stage_main
def main(row: str, baseline: str, seed: int) -> None:
    name, path = f"scst-{row}-{baseline}-{seed}", Path(f"data/recipes/scst-{row}-{baseline}.json")
    recipe = read_recipe(path, ScstRecipe)
    settings, machine = recipe.scst, recipe.machine
    if (processes := start_processes(recipe.launch.processes, machine.device)) is None:
        return
    device, checkpoint = visible_device(machine.device), open_checkpoint(recipe.checkpoint)
    machine = fit_machine(scst_needs(checkpoint, recipe, device), machine, processes)
    seed_everything(seed, processes.threads(machine.threads))
    frozen = load_frozen(checkpoint, machine.compute, device, machine.dequantise)
    freeze_encoder(model := load_adapter(frozen, Path(f"models/adapters/{row}-{seed}"), trainable=True))
    processor, batch = load_processor(checkpoint), machine.chosen("decoding_batch")
    fitted = recipe.model_copy(update={"machine": machine})  # the card keeps the recipe as it is
    with open_run(name, seed, device, processes) as run:
        train = encode_split(model, processor, "train", settings.images, batch, run)
        validation = encode_split(model, processor, "validation", settings.validation_images, batch, run)
        scorers = read_scorers([*train.ids, *validation.ids])
        result = refine(model, processor, fitted, train, validation, scorers, run)
    if processes.is_main:
        counts = count_parameters(model)
        save_adapter(model, Path(f"models/adapters/{name}"), model_card(name, recipe, counts))
        write_records(Path(f"plots/steps/{name}.csv"), result.records, COLUMNS)
        write_records(TIMINGS / f"{name}.csv", result.seconds, PARTS)
        counts |= summarise(result, len(validation), settings.maximum_tokens)
        write_json(Path(f"data/training/{name}.json"), counts)


if __name__ == "__main__":
    command(main)
