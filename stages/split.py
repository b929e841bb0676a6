"""Train, validation and test ids; near-equal images on one side; leakage of both ways to split, measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from captioning.dataset import read_captions, read_table, stream_examples
from captioning.params import load_params
from captioning.runlog import UserError, progress, stage_main
from captioning.splits import Split, group_near_equal, leakage, perceptual_hash, split_by_ratio, split_own

IMAGES = Path("data/captions/images.parquet")


@stage_main
def main() -> None:
    settings = load_params().split
    table = read_table(IMAGES, columns=["id", "source", "split"]).to_pydict()
    ids, sources, own = table["id"], table["source"], table["split"]
    hashes = [perceptual_hash(one.image) for one in progress(stream_examples(IMAGES), len(ids), "hashes")]
    groups = group_near_equal(np.array(hashes, dtype=np.uint64), settings.hash_distance)

    def split(method: str, grouped: bool) -> Split:
        members = groups if grouped else range(len(ids))
        if method == "own":
            return split_own(ids, own, members)
        return split_by_ratio(ids, sources, members, settings.ratios.model_dump(), settings.seed)

    captions, by_id = read_captions(IMAGES), (dict(zip(ids, of, strict=True)) for of in (hashes, groups))
    hash_of, group_of = by_id
    measured: dict[str, Any] = {}
    for method in ("ratio", "own"):
        try:
            ways = {"images_apart": split(method, False), "groups_whole": split(method, True)}
            measured[method] = {way: leakage(one, captions, hash_of, group_of) for way, one in ways.items()}
        except UserError:
            if method == settings.method:
                raise
            measured[method] = None  # the data set has no split of its own
    chosen = split(settings.method, True)
    write(chosen, dict(zip(ids, sources, strict=True)), groups, measured, settings.method)


def write(chosen: Split, sources: dict[str, str], groups: list[int], measured: dict[str, Any], method: str) -> None:
    out, sizes = Path("data/splits"), np.unique(groups, return_counts=True)[1]
    out.mkdir(parents=True, exist_ok=True)
    for name, ids in chosen.items():
        (out / f"{name}.txt").write_text("".join(f"{id_}\n" for id_ in ids), encoding="utf-8")
    metrics = {
        "method": method,
        "images": {name: len(ids) for name, ids in chosen.items()},
        "images_by_source": {
            source: {name: sum(sources[id_] == source for id_ in ids) for name, ids in chosen.items()}
            for source in sorted(set(sources.values()))
        },
        "near_equal_groups": int((sizes > 1).sum()),
        "images_in_groups": int(sizes[sizes > 1].sum()),
        "largest_group": int(sizes.max()),
        "leakage": {name: of and {way: {k: round(v, 4) for k, v in one.items()} for way, one in of.items()}
                    for name, of in measured.items()},
    }  # fmt: skip
    path = Path("metrics/splits.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
