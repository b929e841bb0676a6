"""Refine a row's adapter with self-critical sequence training against one baseline."""

import json
import shutil
import sys
from pathlib import Path

from captioning import disk
from captioning.cider import CiderD, DocumentFrequencies
from captioning.dataset import draw_ids, read_examples
from captioning.features import EncodedImages, encode_all
from captioning.hashes import verify
from captioning.launch import one_gpu, start
from captioning.memory import require
from captioning.model_card import model_card
from captioning.paligemma import load_frozen, load_processor
from captioning.params import load_params
from captioning.qlora import count_parameters, freeze_encoder, load_adapter, save
from captioning.runlog import stage_main, write_records
from captioning.scst import COLUMNS, refine, scst_arguments, summary
from captioning.scst_memory import scst_needs
from captioning.scst_trainer import PARTS
from captioning.tracking import tracked
from captioning.training import base_model, seed_everything
from captioning.training_disk import scst_files

REFERENCES, CACHE = Path("data/references"), Path(".cache")


@stage_main
def main(row: str, baseline: str, seed: int) -> None:
    name = f"scst-{row}-{baseline}-{seed}"
    recipe = json.loads(Path(f"data/recipes/scst-{row}-{baseline}.json").read_text(encoding="utf-8"))
    settings, machine = recipe["scst"], recipe["machine"]
    processes = start(recipe["launch"]["processes"], machine["device"])
    if processes is None:
        return
    device, scratch = one_gpu(machine["device"]), CACHE / "training" / name
    checkpoint = Path("models/checkpoints") / recipe["checkpoint"]["name"]
    verify(checkpoint, recipe["checkpoint"]["files"])
    require(scst_needs(checkpoint, recipe, device), machine)
    adapter, held = Path(f"models/adapters/{row}-{seed}"), {of: len(ids_of(of)) for of in ("train", "validation")}
    disk.require(f"scst {name}", scst_files(name, checkpoint, recipe, adapter, held, processes.count))
    seed_everything(seed, processes.threads(machine["threads"]))
    base = load_frozen(checkpoint, settings["compute"], device, machine["dequantise"])
    model = load_adapter(base, adapter, trainable=True)
    freeze_encoder(model)
    processor, batch = load_processor(checkpoint), machine["decoding_batch"]

    def encoded(split: str, number: int) -> EncodedImages:
        ids = draw_ids(ids_of(split), number, f"scst {split} {seed}")
        images = [one.image for one in read_examples(Path("data/captions/images.parquet"), ids)]
        file = scratch / f"{split}.features"
        return EncodedImages(ids, encode_all(base_model(model), processor, images, batch, file, processes=processes))

    train = encoded("train", settings["images"])
    validation = encoded("validation", settings["validation_images"])
    reward, plain = scorers([*train.ids, *validation.ids])
    own = scratch / str(processes.rank)
    with tracked(load_params().tracking, name, processes.first) as reporting:  # changes no output, so no dependency
        arguments = scst_arguments(
            settings, seed, device, batch, own, processes.count, machine["optimizer"], **reporting
        )
        done = refine(model, processor, settings, train, validation, reward, plain, arguments, processes)
    if not processes.first:
        return
    shutil.rmtree(scratch, ignore_errors=True)
    counts = count_parameters(model)
    save(model, Path(f"models/adapters/{name}"), model_card(name, recipe, counts))
    write_records(Path(f"plots/steps/{name}.csv"), done.records, COLUMNS)
    write_records(CACHE / "timings" / f"{name}.csv", done.seconds, PARTS)
    path = Path(f"metrics/training/{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    gain = summary(done, len(validation), settings["maximum_tokens"])
    path.write_text(json.dumps(counts | gain, indent=1) + "\n", encoding="utf-8")


def ids_of(split: str) -> list[str]:
    return Path(f"data/splits/{split}.txt").read_text(encoding="utf-8").split()


def scorers(ids: list[str]) -> list[CiderD]:
    """CIDEr-D of the reward, with `<eos>`, and of validation, without."""
    names = ("tokens", "document_frequencies")
    tokens, counted = (json.loads((REFERENCES / f"{name}.json").read_text(encoding="utf-8")) for name in names)
    frequencies = DocumentFrequencies.from_json(counted)
    return [CiderD(frequencies, {id_: tokens[id_] for id_ in ids}, eos=eos) for eos in (True, False)]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
