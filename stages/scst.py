"""Refine a row's adapter with self-critical sequence training against one baseline."""

from pathlib import Path

from captioning.adapters.card import model_card
from captioning.adapters.lora import count_parameters, freeze_encoder, load_adapter, save_adapter, unwrap_adapter
from captioning.base.files import write_json, write_records
from captioning.base.json_files import read_map
from captioning.base.paths import TIMINGS
from captioning.compute.processes import device_folder, start_processes, visible_device
from captioning.compute.seeds import seed_everything
from captioning.images.table import draw_ids, read_ids, read_images
from captioning.limits.memory import require_memory
from captioning.limits.scst import scst_needs
from captioning.metrics.cider import CiderD, DocumentFrequencies
from captioning.paligemma.model import load_frozen, load_processor
from captioning.params.load import load_params
from captioning.params.recipe import ScstRecipe, open_checkpoint, read_recipe
from captioning.runtime.resume import exclusive_run_folder
from captioning.runtime.stage import command, stage_main
from captioning.runtime.tracking import tracked
from captioning.scst.features import EncodedImages, encode_images
from captioning.scst.refine import COLUMNS, Scorers, refine, summarise
from captioning.scst.trainer import PARTS
from captioning.training.run import TrainingRun


@stage_main
def main(row: str, baseline: str, seed: int) -> None:
    name = f"scst-{row}-{baseline}-{seed}"
    recipe = read_recipe(Path(f"data/recipes/scst-{row}-{baseline}.json"), ScstRecipe)
    settings, machine = recipe.scst, recipe.machine
    processes = start_processes(recipe.launch.processes, machine.device)
    if processes is None:
        return
    device = visible_device(machine.device)
    checkpoint = open_checkpoint(recipe.checkpoint)
    require_memory(scst_needs(checkpoint, recipe, device), machine)
    seed_everything(seed, processes.threads(machine.threads))
    frozen = load_frozen(checkpoint, machine.compute, device, machine.dequantise)
    model = load_adapter(frozen, Path(f"models/adapters/{row}-{seed}"), trainable=True)
    freeze_encoder(model)
    processor, params = load_processor(checkpoint), load_params()  # only of what changes no output, as `resume`

    def encode(split: str, number: int, folder: Path) -> EncodedImages:
        ids = draw_ids(read_ids(Path(f"data/splits/{split}.txt")), number, f"scst {split} {seed}")
        images = [example.image for example in read_images(Path("data/captions/images.parquet"), ids)]
        file, policy = device_folder(folder, model.device) / f"{split}.features", unwrap_adapter(model)
        features = encode_images(policy, processor, images, machine.decoding_batch, file, processes=processes)
        return EncodedImages(ids, features)

    with (
        exclusive_run_folder(processes.is_main, processes.wait) as folder,
        tracked(params.tracking, name, processes.is_main) as tracking,
    ):
        train = encode("train", settings.images, folder)
        validation = encode("validation", settings.validation_images, folder)
        run = TrainingRun(seed, device, folder, processes, params.resume.every, tracking)
        scorers = read_scorers([*train.ids, *validation.ids])
        refined = refine(model, processor, recipe, train, validation, scorers, run)
    if not processes.is_main:
        return
    counts = count_parameters(model)
    save_adapter(model, Path(f"models/adapters/{name}"), model_card(name, recipe, counts))
    write_records(Path(f"plots/steps/{name}.csv"), refined.records, COLUMNS)
    write_records(TIMINGS / f"{name}.csv", refined.seconds, PARTS)
    gain = summarise(refined, len(validation), settings.maximum_tokens)
    write_json(Path(f"metrics/training/{name}.json"), counts | gain)


def read_scorers(ids: list[str]) -> Scorers:
    """Return the CIDEr-D scorers of the images `ids`, with the document frequencies of the training split."""
    tokens = read_map(Path("data/references/tokens.json"))
    frequencies = DocumentFrequencies.from_json(read_map(Path("data/references/document_frequencies.json")))
    references = {id_: tokens[id_] for id_ in ids}
    return Scorers(CiderD(frequencies, references, eos=True), CiderD(frequencies, references, eos=False))


if __name__ == "__main__":
    command(main)
