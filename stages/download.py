"""Read and clean the captioned images of a source; write one Parquet file, a manifest and a list of unused rows."""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from captioning.base.errors import UserError
from captioning.base.files import atomic_folder, write_json, write_records
from captioning.base.hashes import sha256
from captioning.base.quoting import csv_cell
from captioning.data.readers.rows import Source
from captioning.data.sources import PARQUET, open_source
from captioning.images.table import CaptionedImage, write_parquet
from captioning.params.load import load_params
from captioning.params.sections import Data
from captioning.runtime.progress import progress
from captioning.runtime.stage import stage_main


@stage_main
def main() -> None:
    source = open_source(data := load_params().data)
    if source.total < source.rows:
        print(f"{source.total} of {source.rows} rows drawn (data.images)", file=sys.stderr)
    counts: dict[str, Counter[str]] = {"images": Counter(), "images_by_captions_kept": Counter()}

    def count_images() -> Iterator[CaptionedImage]:
        for image in progress(source, source.total, "images"):
            counts["images"][image.source] += 1
            counts["images_by_captions_kept"][str(len(image.captions))] += 1
            yield image

    with atomic_folder(PARQUET.parent) as out:
        path = out / PARQUET.name
        if not write_parquet(count_images(), path):
            reason = source.set_aside[0].reason
            raise UserError(f"{data.path}: no usable image in {source.total} rows ({reason}); put the images there")
        write_json(out / "manifest.json", make_manifest(data, source, counts) | {"sha256": {path.name: sha256(path)}})
        unused = sorted(source.set_aside)
        cells = [{"image": csv_cell(row.image), "line": row.line, "reason": csv_cell(row.reason)} for row in unused]
        write_records(out / "set_aside.csv", cells, ["image", "line", "reason"])


def make_manifest(data: Data, source: Source, counts: dict[str, Counter[str]]) -> dict[str, Any]:
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
