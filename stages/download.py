"""Captioned images of the profile's source, cleaned, in one Parquet file, with a manifest and what was set aside."""

import csv
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from captioning.dataset import CaptionedImage, write_parquet
from captioning.params import Data, load_params
from captioning.runlog import UserError, progress, stage_main
from captioning.sources import Source, folder, overhead

OUT = Path("data/captions")


@stage_main
def main() -> None:
    data = load_params().data
    source = open_source(data)
    if source.total < source.rows:
        print(f"{source.total} of {source.rows} rows drawn (data.images)", file=sys.stderr)
    images: Counter[str] = Counter()
    captions: Counter[str] = Counter()

    def counted() -> Iterator[CaptionedImage]:
        for image in progress(source, source.total, "images"):
            images[image.source] += 1
            captions[str(len(image.captions))] += 1
            yield image

    path = OUT / "images.parquet"
    if not write_parquet(counted(), path):
        reason = source.set_aside[0].reason
        raise UserError(f"{data.path}: no usable image in {source.total} rows ({reason}); put the images there")
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    manifest = {
        "rows": source.rows,
        "rows_read": source.total,
        "images": dict(sorted(images.items())),
        "images_by_captions_kept": dict(sorted(captions.items())),
        "cleaning_rules_fired": dict(sorted(source.rules.items())),
        "set_aside": len(source.set_aside),
        "sha256": {path.name: digest},
    }
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    with (OUT / "set_aside.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["image", "line", "reason"])
        writer.writerows((one.image, one.line, one.reason) for one in sorted(source.set_aside))


def open_source(data: Data) -> Source:
    """The drawn world, or a folder."""
    if data.source == "overhead":
        return overhead(data.images, data.image_size, data.seed)
    return folder(Path(data.path), data.images, data.seed)


if __name__ == "__main__":
    main()
