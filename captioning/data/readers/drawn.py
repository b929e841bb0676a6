"""Read the drawn world as a source: any number of scenes in RISC's proportions."""

import json
import random
from collections.abc import Iterator
from dataclasses import asdict

from captioning.data.readers.rows import CAPTIONS, Source
from captioning.data.world.captions import write_captions
from captioning.data.world.draw import draw_scene
from captioning.data.world.scenes import sample_scene
from captioning.images.decoded import encode_png
from captioning.images.table import CaptionedImage, apportion, clean_caption

SHARES = {"NWPU": 31_500 / 44_521, "RSICD": 10_921 / 44_521, "UCM": 2_100 / 44_521}  # of RISC's images
SPLIT_SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def draw_world(images: int, size: int, seed: int) -> Source:
    """Draw `images` scenes of `size` pixels, in RISC's proportions of sources, split 80/10/10."""
    return Source(_draw_images(images, size, seed), images, images, images * len(CAPTIONS))


def _draw_images(images: int, size: int, seed: int) -> Iterator[CaptionedImage]:
    for source, number in apportion(images, SHARES).items():
        splits = [split for split, count in apportion(number, SPLIT_SHARES).items() for _ in range(count)]
        random.Random(f"own split {source} {seed}").shuffle(splits)
        for index, split in enumerate(splits):
            id_ = f"{source}_{index}"
            rng = random.Random(f"{id_} {seed}")
            scene = sample_scene(rng)
            image = encode_png(draw_scene(scene, size, rng))
            captions = tuple(clean_caption(text)[0] for text in write_captions(scene, source, rng))
            facts = json.dumps(asdict(scene), sort_keys=True)
            yield CaptionedImage(id_, source, split, image, f"{id_}.png", captions, facts)
