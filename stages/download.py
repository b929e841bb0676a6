"""Captioned images of the profile's source, cleaned, in one Parquet file, with a manifest and what was set aside."""

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captioning import hub
from captioning.archives import archive
from captioning.dataset import CaptionedImage, write_parquet
from captioning.hashes import sha256
from captioning.origins import find_archive, find_shards, look_for_shards
from captioning.outputs import whole_folder, write_json
from captioning.params import Data, Declared, load_params
from captioning.quoting import cell
from captioning.rows import Source
from captioning.runlog import UserError, progress
from captioning.shards import shards
from captioning.sources import folder, overhead
from captioning.stage import stage_main

OUT = Path("data/captions")
DOWNLOADS = Path(".cache/downloads")  # outside DVC's outputs, which it deletes before a run


@stage_main
def main() -> None:
    data = load_params().data
    source = open_source(data)
    check_declared(data.declared, source, data.source)
    if source.total < source.rows:
        print(f"{source.total} of {source.rows} rows drawn (data.images)", file=sys.stderr)
    counts: dict[str, Counter[str]] = {"images": Counter(), "images_by_captions_kept": Counter()}

    def counted() -> Iterator[CaptionedImage]:
        for image in progress(source, source.total, "images"):
            counts["images"][image.source] += 1
            counts["images_by_captions_kept"][str(len(image.captions))] += 1
            yield image

    with whole_folder(OUT) as out:
        path = out / "images.parquet"
        if not write_parquet(counted(), path):
            reason = source.set_aside[0].reason
            raise UserError(f"{data.path}: no usable image in {source.total} rows ({reason}); put the images there")
        manifest = describe(data, source, counts) | {"sha256": {path.name: sha256(path)}}
        write_json(out / "manifest.json", manifest)
        with (out / "set_aside.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "line", "reason"])
            writer.writerows((cell(one.image), one.line, cell(one.reason)) for one in sorted(source.set_aside))


def open_source(data: Data) -> Source:
    """The drawn world, a folder, an archive, or the Hub."""
    path, draw = Path(data.path), (data.images, data.seed)
    if data.source == "overhead":
        return overhead(data.images, data.image_size, data.seed)
    if data.source == "archive":
        return archive(find_archive(path), *draw)
    if data.source == "folder":
        found = find_shards(path)
        return shards(found, path.name, *draw) if found else folder(path, *draw)
    snapshot, wanted = look_for_shards(data.repository, data.revision)
    there = hub.fetch(snapshot, wanted, DOWNLOADS / "datasets" / data.repository.replace("/", "--"))
    source = shards(there, data.repository.rpartition("/")[2], *draw)
    source.origin |= {"repository": data.repository, "revision": data.revision, "commit": snapshot.commit}
    return source


def check_declared(declared: Declared | None, source: Source, kind: str) -> None:
    """Raises `UserError` where the source does not hold what params.yaml says it must, all differences at once."""
    if declared is None:
        return
    found = {"images": source.rows, "captions": source.captions}
    if declared.sha256 and kind == "archive":
        found["sha256"] = source.origin["sha256"]
    wrong = [
        f"{value} {key} where data.declared says {getattr(declared, key)}"
        for key, value in found.items()
        if value != getattr(declared, key)
    ]
    if wrong:
        raise UserError(f"the {kind} holds {' and '.join(wrong)}; mend the {kind}, or set data.declared to null")


def describe(data: Data, source: Source, counts: dict[str, Counter[str]]) -> dict[str, Any]:
    """The manifest: what there was, what was taken of it, and what was changed or left out."""
    return {
        "source": {"kind": data.source, **source.origin},
        "declared": data.declared and data.declared.model_dump(),
        "rows": source.rows,
        "captions": source.captions,
        "rows_read": source.total,
        **{name: dict(sorted(count.items())) for name, count in counts.items()},
        "cleaning_rules_fired": dict(sorted(source.rules.items())),
        "set_aside": len(source.set_aside),
    }


if __name__ == "__main__":
    main()
