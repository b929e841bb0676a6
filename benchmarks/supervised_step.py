"""One supervised step of four rows in NF4, forward and backward: suffix logits only, against the plain library path."""

import io
import random
import tempfile
from pathlib import Path

from benchmarks.side_by_side import side_by_side
from captioning import miniature
from captioning.overhead import draw, sample_scene
from captioning.overhead_language import captions
from captioning.paligemma import Collator, load_processor, load_quantised, supervised_loss
from captioning.qlora import attach, lora_config
from captioning.training import base_model, seed_everything

SIZE = 48  # pixels


def run() -> str:
    seed_everything(1, threads=2)
    rng, examples = random.Random(1), []
    for _ in range(4):
        scene, png = sample_scene(rng), io.BytesIO()
        draw(scene, SIZE, rng).save(png, "PNG")
        caption = captions(scene, "NWPU", rng)[0]
        examples.append({"image": png.getvalue(), "prompt": "caption en", "caption": caption})
    with tempfile.TemporaryDirectory() as folder:
        for part in miniature.new_checkpoint([], SIZE):
            part.save_pretrained(folder)
        processor = load_processor(Path(folder))
        loaded = load_quantised(Path(folder), "bfloat16", "cpu")
    model = attach(loaded, lora_config(16, 16, 0.0, False, "table2")).train()
    batch = Collator(processor)(examples)

    def ours() -> None:
        supervised_loss(base_model(model), batch).backward()

    def peer() -> None:
        pixels = batch["pixel_values"].to(base_model(model).dtype)
        model(**(batch | {"pixel_values": pixels})).loss.backward()

    return side_by_side("supervised step, miniature, 4 rows", ours, peer, pairs=15)
