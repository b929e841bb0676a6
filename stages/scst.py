"""Refine a row's adapter with self-critical sequence training against one baseline."""

from pathlib import Path

from captioning.adapters.card import model_card
from captioning.adapters.lora import count_parameters, freeze_encoder, load_adapter, save_adapter, unwrap_adapter
from captioning.base.files import write_json, write_records
from captioning.base.hashes import require_hashes
from captioning.base.json_files import read_map
from captioning.base.paths import TIMINGS
from captioning.compute.processes import device_folder, start_processes, visible_device
from captioning.compute.seeds import seed_everything
from captioning.images.table import draw_ids, read_ids, read_images
from captioning.limits.memory import require
from captioning.limits.scst import scst_needs
from captioning.metrics.cider import CiderD, DocumentFrequencies
from captioning.paligemma.model import load_frozen, load_processor
from captioning.params.load import load_params
from captioning.runtime import inputs
from captioning.runtime.resume import exclusive_run_folder
from captioning.runtime.stage import command, stage_main
from captioning.runtime.tracking import tracked
from captioning.scst.features import EncodedImages, encode_all
from captioning.scst.refine import COLUMNS, refine, scst_arguments, summary
from captioning.scst.trainer import PARTS

REFERENCES = Path("data/references")


@stage_main
def main(row: str, baseline: str, seed: int) -> None:
    name = f"scst-{row}-{baseline}-{seed}"
    recipe = read_map(Path(f"data/recipes/scst-{row}-{baseline}.json"), "scst", "machine", "checkpoint", "launch")
    settings, machine = recipe["scst"], recipe["machine"]
    processes = start_processes(recipe["launch"]["processes"], machine["device"])
    if processes is None:
        return
    device = visible_device(machine["device"])
    checkpoint = Path("models/checkpoints") / recipe["checkpoint"]["name"]
    inputs.watch(checkpoint)
    require_hashes(checkpoint, recipe["checkpoint"]["files"])
    require(scst_needs(checkpoint, recipe, device), machine)
    adapter = Path(f"models/adapters/{row}-{seed}")
    seed_everything(seed, processes.threads(machine["threads"]))
    base = load_frozen(checkpoint, machine["compute"], device, machine["dequantise"])
    model = load_adapter(base, adapter, trainable=True)
    freeze_encoder(model)
    processor, batch = load_processor(checkpoint), machine["decoding_batch"]

    def encoded(split: str, number: int, scratch: Path) -> EncodedImages:
        ids = draw_ids(ids_of(split), number, f"scst {split} {seed}")
        images = [one.image for one in read_images(Path("data/captions/images.parquet"), ids)]
        file = device_folder(scratch, model.device) / f"{split}.features"
        return EncodedImages(
            ids, encode_all(unwrap_adapter(model), processor, images, batch, file, processes=processes)
        )

    params = load_params()  # of what changes no output, so no dependency
    with (
        exclusive_run_folder(processes.is_main, processes.wait) as scratch,
        tracked(params.tracking, name, processes.is_main) as log,
    ):
        train = encoded("train", settings["images"], scratch)
        validation = encoded("validation", settings["validation_images"], scratch)
        reward, plain = scorers([*train.ids, *validation.ids])
        own = scratch / str(processes.rank)
        arguments = scst_arguments(settings, seed, device, batch, own, processes.count, machine["optimizer"], **log)
        every = params.resume.every
        done = refine(model, processor, settings, train, validation, reward, plain, arguments, processes, every)
    if not processes.is_main:
        return
    counts = count_parameters(model)
    save_adapter(model, Path(f"models/adapters/{name}"), model_card(name, recipe, counts))
    write_records(Path(f"plots/steps/{name}.csv"), done.records, COLUMNS)
    write_records(TIMINGS / f"{name}.csv", done.seconds, PARTS)
    gain = summary(done, len(validation), settings["maximum_tokens"])
    write_json(Path(f"metrics/training/{name}.json"), counts | gain)


def ids_of(split: str) -> list[str]:
    return read_ids(Path(f"data/splits/{split}.txt"))


def scorers(ids: list[str]) -> list[CiderD]:
    """CIDEr-D of the reward, with `<eos>`, and of validation, without."""
    names = ("tokens", "document_frequencies")
    tokens, counted = (read_map(REFERENCES / f"{name}.json") for name in names)
    frequencies = DocumentFrequencies.from_json(counted)
    return [CiderD(frequencies, {id_: tokens[id_] for id_ in ids}, eos=eos) for eos in (True, False)]


if __name__ == "__main__":
    command(main)
