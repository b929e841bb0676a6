"""Split images into train, validation and test, near-equal ones together; measure the leakage of each method."""

from pathlib import Path

from captioning.base.files import atomic_folder, write_json, write_text
from captioning.data.splits import HELD_OUT, SplitImages, perceptual_hash
from captioning.images.table import read_captions, read_table, stream_images
from captioning.params.load import load_params
from captioning.runtime.progress import progress
from captioning.runtime.stage import stage_main

IMAGES = Path("data/captions/images.parquet")


@stage_main
def main() -> None:
    settings = load_params().split
    table = read_table(IMAGES, columns=["id", "source", "split"]).to_pydict()
    ids = table["id"]
    hashes = [perceptual_hash(image.image) for image in progress(stream_images(IMAGES), len(ids), "hashes")]
    ratios, distance = settings.ratios.model_dump(), settings.hash_distance
    published, held_out = table["split"], settings.held_out
    images = SplitImages(ids, table["source"], published, hashes, distance, ratios, settings.seed, held_out)
    groups = images.group_images()
    splits = images.split(settings.method, groups)
    statistics = images.describe(settings.method, splits, groups, read_captions(IMAGES))
    lists = splits | {"captioned": [*splits["test"], *splits.get(HELD_OUT, [])]}
    with atomic_folder(Path("data/splits")) as folder:
        for name, members in lists.items():
            write_text(folder / f"{name}.txt", "".join(f"{id_}\n" for id_ in members))
        write_json(folder / "parts.json", images.find_scored_parts(splits, settings.method), indent=None)
        write_json(folder / "statistics.json", statistics.model_dump())


if __name__ == "__main__":
    main()
