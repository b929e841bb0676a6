"""Captioned images of the profile's source, cleaned, in one Parquet file, with a manifest and what was set aside."""

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from captioning.base.errors import UserError
from captioning.base.files import atomic_folder, write_json
from captioning.base.hashes import sha256
from captioning.base.quoting import csv_cell
from captioning.data.readers.rows import Source
from captioning.data.sources import PARQUET, open_source
from captioning.images.table import CaptionedImage, write_parquet
from captioning.params.load import Data, load_params
from captioning.runtime.progress import progress
from captioning.runtime.stage import stage_main

OUT = PARQUET.parent


@stage_main
def main() -> None:
    data = load_params().data
    source = open_source(data)
    if source.total < source.rows:
        print(f"{source.total} of {source.rows} rows drawn (data.images)", file=sys.stderr)
    counts: dict[str, Counter[str]] = {"images": Counter(), "images_by_captions_kept": Counter()}

    def counted() -> Iterator[CaptionedImage]:
        for image in progress(source, source.total, "images"):
            counts["images"][image.source] += 1
            counts["images_by_captions_kept"][str(len(image.captions))] += 1
            yield image

    with atomic_folder(OUT) as out:
        path = out / PARQUET.name
        if not write_parquet(counted(), path):
            reason = source.set_aside[0].reason
            raise UserError(f"{data.path}: no usable image in {source.total} rows ({reason}); put the images there")
        manifest = describe(data, source, counts) | {"sha256": {path.name: sha256(path)}}
        write_json(out / "manifest.json", manifest)
        with (out / "set_aside.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "line", "reason"])
            writer.writerows((csv_cell(one.image), one.line, csv_cell(one.reason)) for one in sorted(source.set_aside))


def describe(data: Data, source: Source, counts: dict[str, Counter[str]]) -> dict[str, Any]:
    """The manifest: what there was, what was taken of it, and what was changed or left out."""
    return {
        "source": {"kind": data.source, **source.origin},
        "declared": data.declared and data.declared.model_dump(),
        "rows": source.rows,
        "captions": source.captions,
        "rows_read": source.total,
        **{name: dict(sorted(count.items())) for name, count in counts.items()},
        "cleaning_rules_fired": dict(sorted(source.fired_rules.items())),
        "set_aside": len(source.set_aside),
    }


if __name__ == "__main__":
    main()
