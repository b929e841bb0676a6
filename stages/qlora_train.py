"""Fine-tune an adapter of one variant with one seed."""

from pathlib import Path

from peft import get_peft_model

from captioning.adapters.card import model_card
from captioning.adapters.lora import count_parameters, lora_config, save_adapter
from captioning.base.files import write_json, write_records
from captioning.compute.processes import start_processes, visible_device
from captioning.compute.seeds import seed_everything
from captioning.images.table import read_ids, read_images
from captioning.limits.memory import finetune_needs, longest_suffix
from captioning.limits.sizes import fit_machine
from captioning.paligemma.model import load_frozen, load_processor
from captioning.params.recipe import VariantRecipe, open_checkpoint, read_recipe
from captioning.runtime.stage import command, stage_main
from captioning.supervised.finetune import COLUMNS, CaptionRows, finetune
from captioning.training.run import open_run


@stage_main
def main(variant: str, seed: int) -> None:
    recipe = read_recipe(Path(f"data/recipes/{variant}.json"), VariantRecipe)
    settings, machine = recipe.finetune, recipe.machine
    if (processes := start_processes(recipe.launch.processes, machine.device)) is None:
        return
    device, name, checkpoint = visible_device(machine.device), f"{variant}-{seed}", open_checkpoint(recipe.checkpoint)
    train = read_rows("train", settings.prompt, settings.captions, seed)
    validation = read_rows("validation", settings.prompt, "first", seed)
    captions = [caption for captions in [*train.captions, *validation.captions] for caption in captions]
    longest = longest_suffix(processor := load_processor(checkpoint), captions)
    machine = fit_machine(finetune_needs(checkpoint, recipe, longest, device), machine, processes)
    seed_everything(seed, processes.threads(machine.threads))
    frozen = load_frozen(checkpoint, machine.compute, device, machine.dequantise)
    model = get_peft_model(frozen, lora_config(**dict(recipe.lora)))
    fitted = recipe.model_copy(update={"machine": machine})  # the card keeps the recipe as it is
    with open_run(name, seed, device, processes) as run:
        result = finetune(model, processor, fitted, train, validation, run)
    if processes.is_main:
        counts = count_parameters(model)
        save_adapter(model, Path("models/adapters") / name, model_card(name, recipe, counts))
        write_records(Path(f"plots/steps/{name}.csv"), result.records, COLUMNS)
        best = {"best_epoch": result.best_epoch, "validation_loss": round(result.validation_loss, 6)}
        write_json(Path(f"data/training/{name}.json"), counts | best | result.scaling)


def read_rows(split: str, prompt: str, choice: str, seed: int) -> CaptionRows:
    rows = read_images(Path("data/captions/images.parquet"), read_ids(Path(f"data/splits/{split}.txt")))
    return CaptionRows([row.image for row in rows], [row.captions for row in rows], prompt, choice, seed)


if __name__ == "__main__":
    command(main)
