"""Greedy captions of the test images by one model: a bare checkpoint, or a checkpoint with an adapter."""

import argparse
import json
from pathlib import Path

from captioning.dataset import read_examples
from captioning.decoding import greedy_captions
from captioning.paligemma import load_for_decoding, load_processor
from captioning.params import load_params
from captioning.qlora import load_adapter
from captioning.runlog import progress, stage_main
from captioning.training import seed_everything


@stage_main
def main() -> None:
    arguments = parse()
    params = load_params()
    machine, settings = params.active.machine, params.finetune
    seed_everything(0, machine.threads)
    checkpoint = arguments.checkpoint
    if arguments.recipe:
        checkpoint = (
            Path("models/checkpoints") / json.loads(arguments.recipe.read_text(encoding="utf-8"))["checkpoint"]["name"]
        )
    model = load_for_decoding(checkpoint, settings.compute, machine.device, machine.dequantise)
    if arguments.adapter:
        model = load_adapter(model, arguments.adapter)
    ids = Path("data/splits/test.txt").read_text(encoding="utf-8").split()
    images = [one.image for one in read_examples(Path("data/captions/images.parquet"), ids)]
    captions = greedy_captions(
        model,
        load_processor(checkpoint),
        images,
        settings.prompt,
        params.decoding.maximum_tokens,
        machine.decoding_batch,
    )
    rows = [
        {"id": id_, "caption": caption.text, "tokens": caption.tokens, "ended": caption.ended}
        for id_, caption in zip(ids, progress(captions, len(ids), "captions"), strict=True)
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--checkpoint", type=Path, help="a checkpoint folder, as it is")
    start.add_argument("--recipe", type=Path, help="a recipe, for its checkpoint")
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
