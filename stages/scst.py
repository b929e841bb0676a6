"""Refine the start variant's adapter with self-critical sequence training against one baseline."""

import json
import sys
from pathlib import Path

from captioning.checkpoints import verify
from captioning.cider import CiderD, DocumentFrequencies
from captioning.dataset import draw_ids, read_examples
from captioning.features import EncodedImages, encode_all
from captioning.model_card import model_card
from captioning.paligemma import load_for_decoding, load_processor
from captioning.qlora import count_parameters, freeze_encoder, load_adapter, save
from captioning.runlog import stage_main, write_records
from captioning.scst import COLUMNS, refine, scst_arguments, summary
from captioning.scst_trainer import PARTS
from captioning.training import base_model, seed_everything

REFERENCES, CACHE = Path("data/references"), Path(".cache")


@stage_main
def main(baseline: str, seed: int) -> None:
    name = f"scst-{baseline}-{seed}"
    recipe = json.loads(Path(f"data/recipes/scst-{baseline}.json").read_text(encoding="utf-8"))
    settings, machine = recipe["scst"], recipe["machine"]
    checkpoint = Path("models/checkpoints") / recipe["checkpoint"]["name"]
    verify(checkpoint, recipe["checkpoint"]["files"])
    seed_everything(seed, machine["threads"])
    base = load_for_decoding(checkpoint, settings["compute"], machine["device"], machine["dequantise"])
    model = load_adapter(base, Path(f"models/adapters/{settings['start']}-{seed}"), trainable=True)
    freeze_encoder(model)
    processor, batch = load_processor(checkpoint), machine["decoding_batch"]

    def encoded(split: str, number: int) -> EncodedImages:
        all_ids = Path(f"data/splits/{split}.txt").read_text(encoding="utf-8").split()
        ids = draw_ids(all_ids, number, f"scst {split} {seed}")
        images = [one.image for one in read_examples(Path("data/captions/images.parquet"), ids)]
        file = CACHE / "training" / name / f"{split}.features"
        return EncodedImages(ids, encode_all(base_model(model), processor, images, batch, file))

    train = encoded("train", settings["images"])
    validation = encoded("validation", settings["validation_images"])
    reward, plain = scorers([*train.ids, *validation.ids])
    arguments = scst_arguments(settings, seed, machine["device"], batch, CACHE / "training" / name)
    done = refine(model, processor, settings, train, validation, reward, plain, arguments)
    counts = count_parameters(model)
    save(model, Path(f"models/adapters/{name}"), model_card(name, recipe, counts))
    write_records(Path(f"plots/steps/{name}.csv"), done.records, COLUMNS)
    write_records(CACHE / "timings" / f"{name}.csv", done.seconds, PARTS)
    path = Path(f"metrics/training/{name}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    gain = summary(done, len(validation), settings["maximum_tokens"])
    path.write_text(json.dumps(counts | gain, indent=1) + "\n", encoding="utf-8")


def scorers(ids: list[str]) -> list[CiderD]:
    """CIDEr-D of the reward, with `<eos>`, and of validation, without."""
    names = ("tokens", "document_frequencies")
    tokens, counted = (json.loads((REFERENCES / f"{name}.json").read_text(encoding="utf-8")) for name in names)
    frequencies = DocumentFrequencies.from_json(counted)
    return [CiderD(frequencies, {id_: tokens[id_] for id_ in ids}, eos=eos) for eos in (True, False)]


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
