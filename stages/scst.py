"""Refine the start variant's adapter with self-critical sequence training."""

import json
import random
import sys
from pathlib import Path

from captioning.checkpoints import verify
from captioning.cider import CiderD, DocumentFrequencies
from captioning.dataset import read_examples
from captioning.model_card import model_card
from captioning.paligemma import load_processor, load_quantised
from captioning.qlora import count_parameters, freeze_encoder, load_adapter, save
from captioning.runlog import stage_main, write_records
from captioning.scst import COLUMNS, Images, refine
from captioning.training import seed_everything

REFERENCES = Path("data/references")


@stage_main
def main(start: str, seed: int) -> None:
    recipe = json.loads(Path("data/recipes/scst.json").read_text(encoding="utf-8"))
    settings, machine = recipe["scst"], recipe["machine"]
    checkpoint = Path("models/checkpoints") / recipe["checkpoint"]["name"]
    verify(checkpoint, recipe["checkpoint"]["files"])
    seed_everything(seed, machine["threads"])
    base = load_quantised(checkpoint, settings["compute"], machine["device"])
    model = load_adapter(base, Path(f"models/adapters/{start}-{seed}"), trainable=True)
    freeze_encoder(model)
    train = images("train", settings["images"], seed)
    validation = images("validation", settings["validation_images"], seed)
    tokens = json.loads((REFERENCES / "tokens.json").read_text(encoding="utf-8"))
    references = {id_: tokens[id_] for id_ in [*train.ids, *validation.ids]}
    frequencies = DocumentFrequencies.from_json(
        json.loads((REFERENCES / "document_frequencies.json").read_text(encoding="utf-8"))
    )
    reward, plain = (CiderD(frequencies, references, eos=eos) for eos in (True, False))
    done = refine(
        model,
        load_processor(checkpoint),
        settings,
        train,
        validation,
        reward,
        plain,
        seed,
        machine["device"],
        machine["decoding_batch"],
        Path(f".cache/training/scst-{seed}"),
    )
    counts = count_parameters(model)
    save(model, Path(f"models/adapters/scst-{seed}"), model_card(f"scst-{seed}", recipe, counts))
    write_records(Path(f"plots/steps/scst-{seed}.csv"), done.records, COLUMNS)
    summary = counts | {
        "best_step": done.best_step,
        "validation_cider": round(done.validation_cider, 4),
        "start_validation_cider": round(done.start_validation_cider, 4),
    }
    path = Path(f"metrics/training/scst-{seed}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def images(split: str, number: int, seed: int) -> Images:
    """A seeded draw of `number` images of a split; all of them where it is 0 or more than there are."""
    ids = Path(f"data/splits/{split}.txt").read_text(encoding="utf-8").split()
    if 0 < number < len(ids):
        ids = sorted(random.Random(f"scst {split} {seed}").sample(ids, number))
    examples = read_examples(Path("data/captions/images.parquet"), ids)
    return Images([one.id for one in examples], [one.image for one in examples])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
