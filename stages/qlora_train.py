"""Fine-tune one variant with one seed: its recipe, its checkpoint, training and validation images -> an adapter."""

from pathlib import Path

from captioning.adapters.card import model_card
from captioning.adapters.lora import attach_adapter, count_parameters, lora_config, save_adapter
from captioning.base.files import write_json, write_records
from captioning.compute.processes import start_processes, visible_device
from captioning.compute.seeds import seed_everything
from captioning.images.table import read_ids, read_images
from captioning.limits.memory import finetune_needs, longest_suffix, require_memory
from captioning.paligemma.model import load_frozen, load_processor
from captioning.params.load import load_params
from captioning.params.recipe import VariantRecipe, open_checkpoint, read_recipe
from captioning.runtime.resume import exclusive_run_folder
from captioning.runtime.stage import command, stage_main
from captioning.runtime.tracking import tracked
from captioning.supervised.finetune import COLUMNS, CaptionRows, finetune
from captioning.training.run import TrainingRun


@stage_main
def main(variant: str, seed: int) -> None:
    recipe = read_recipe(Path(f"data/recipes/{variant}.json"), VariantRecipe)
    settings, machine = recipe.finetune, recipe.machine
    processes = start_processes(recipe.launch.processes, machine.device)
    if processes is None:
        return
    device, name = visible_device(machine.device), f"{variant}-{seed}"
    checkpoint = open_checkpoint(recipe.checkpoint)
    train = rows("train", settings.prompt, settings.captions, seed)
    validation = rows("validation", settings.prompt, "first", seed)
    processor = load_processor(checkpoint)
    captions = [caption for rows in (train, validation) for image in rows.captions for caption in image]
    require_memory(finetune_needs(checkpoint, recipe, longest_suffix(processor, captions), device), machine)
    seed_everything(seed, processes.threads(machine.threads))
    frozen = load_frozen(checkpoint, machine.compute, device, machine.dequantise)
    model = attach_adapter(frozen, lora_config(**dict(recipe.lora)))
    params = load_params()  # only of what changes no output, so dvc.yaml does not list it
    with (
        exclusive_run_folder(processes.is_main, processes.wait) as folder,
        tracked(params.tracking, name, processes.is_main) as tracking,
    ):
        run = TrainingRun(seed, device, folder, processes, params.resume.every, tracking)
        finetuned = finetune(model, processor, recipe, train, validation, run)
    if not processes.is_main:
        return
    counts = count_parameters(model)
    save_adapter(model, Path("models/adapters") / name, model_card(name, recipe, counts))
    write_records(Path(f"plots/steps/{name}.csv"), finetuned.records, COLUMNS)
    best = {"best_epoch": finetuned.best_epoch, "validation_loss": round(finetuned.validation_loss, 6)}
    write_json(Path(f"metrics/training/{name}.json"), counts | best)


def rows(split: str, prompt: str, choice: str, seed: int) -> CaptionRows:
    """Read the images and captions of a split."""
    ids = read_ids(Path(f"data/splits/{split}.txt"))
    examples = read_images(Path("data/captions/images.parquet"), ids)
    images, captions = [example.image for example in examples], [example.captions for example in examples]
    return CaptionRows(images, captions, prompt, choice, seed)


if __name__ == "__main__":
    command(main)
