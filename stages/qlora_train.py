"""Fine-tune one variant with one seed: its recipe, its checkpoint, training and validation images -> an adapter."""

from pathlib import Path

from captioning.adapters.card import model_card
from captioning.adapters.lora import attach_adapter, count_parameters, lora_config, save_adapter
from captioning.base.files import write_json, write_records
from captioning.base.hashes import require_hashes
from captioning.base.json_files import read_map
from captioning.compute.processes import start_processes, visible_device
from captioning.compute.seeds import seed_everything
from captioning.images.table import read_ids, read_images
from captioning.limits.memory import finetune_needs, longest_suffix, require
from captioning.paligemma.model import load_frozen, load_processor
from captioning.params.load import load_params
from captioning.runtime import inputs
from captioning.runtime.resume import exclusive_run_folder
from captioning.runtime.stage import command, stage_main
from captioning.runtime.tracking import tracked
from captioning.supervised.finetune import COLUMNS, CaptionRows, finetune


@stage_main
def main(variant: str, seed: int) -> None:
    recipe = read_map(Path(f"data/recipes/{variant}.json"), "finetune", "lora", "machine", "checkpoint", "launch")
    settings, machine = recipe["finetune"], recipe["machine"]
    processes = start_processes(recipe["launch"]["processes"], machine["device"])
    if processes is None:
        return
    device, name = visible_device(machine["device"]), f"{variant}-{seed}"
    checkpoint = Path("models/checkpoints") / recipe["checkpoint"]["name"]
    inputs.watch(checkpoint)
    require_hashes(checkpoint, recipe["checkpoint"]["files"])
    train, validation = (
        rows(split, settings["prompt"], choice, seed)
        for split, choice in (("train", settings["captions"]), ("validation", "first"))
    )
    processor = load_processor(checkpoint)
    longest = longest_suffix(processor, [one for of in (train, validation) for own in of.captions for one in own])
    require(finetune_needs(checkpoint, recipe, longest, device), machine)
    seed_everything(seed, processes.threads(machine["threads"]))
    model = attach_adapter(
        load_frozen(checkpoint, machine["compute"], device, machine["dequantise"]), lora_config(**recipe["lora"])
    )
    params = load_params()  # of what changes no output, so no dependency
    with (
        exclusive_run_folder(processes.is_main, processes.wait) as scratch,
        tracked(params.tracking, name, processes.is_main) as reporting,
    ):
        done = finetune(
            model,
            processor,
            settings,
            train,
            validation,
            seed,
            device,
            scratch,
            processes,
            machine["optimizer"],
            machine["training_rows"],
            machine["decoding_batch"],
            params.resume.every,
            **reporting,
        )
    if not processes.is_main:
        return
    counts = count_parameters(model)
    save_adapter(model, Path("models/adapters") / name, model_card(name, recipe, counts))
    write_records(Path(f"plots/steps/{name}.csv"), done.records, COLUMNS)
    summary = counts | {"best_epoch": done.best_epoch, "validation_loss": round(done.validation_loss, 6)}
    write_json(Path(f"metrics/training/{name}.json"), summary)


def rows(split: str, prompt: str, choice: str, seed: int) -> CaptionRows:
    """Rows of a split's images."""
    ids = read_ids(Path(f"data/splits/{split}.txt"))
    examples = read_images(Path("data/captions/images.parquet"), ids)
    return CaptionRows([one.image for one in examples], [one.captions for one in examples], prompt, choice, seed)


if __name__ == "__main__":
    command(main)
