"""Read and clean the captioned images of a source; write one Parquet file, a manifest and a list of unused rows."""

import sys
from collections import Counter
from collections.abc import Iterator

from captioning.base.files import atomic_folder, write_json
from captioning.base.hashes import sha256
from captioning.data.losses import count_reasons, describe_losses, refuse_losses, write_losses
from captioning.data.outputs import Manifest
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
    print(source.description or f"source: {data.source}", file=sys.stderr)
    if source.total < source.rows:
        print(f"{source.total} of {source.rows} rows drawn (data.images)", file=sys.stderr)
    counts: dict[str, Counter[str]] = {"images": Counter(), "images_by_captions_kept": Counter()}
    with atomic_folder(PARQUET.parent) as out:
        path = out / PARQUET.name
        written = write_parquet(count_images(source, counts), path)
        print(describe_losses(source), file=sys.stderr)
        if data.set_aside == "refuse" or not written:
            refuse_losses(source, data.path, written)
        write_losses(source, out / "set_aside.csv")
        write_json(out / "manifest.json", make_manifest(data, source, counts, {path.name: sha256(path)}).model_dump())


def count_images(source: Source, counts: dict[str, Counter[str]]) -> Iterator[CaptionedImage]:
    for image in progress(source, source.total, "images"):
        counts["images"][image.source] += 1
        counts["images_by_captions_kept"][str(len(image.captions))] += 1
        yield image


def make_manifest(data: Data, source: Source, counts: dict[str, Counter[str]], hashes: dict[str, str]) -> Manifest:
    return Manifest(
        source={"kind": data.source, **source.origin},
        declared=data.declared,
        rows=source.rows,
        captions=source.captions,
        rows_read=source.total,
        **{name: dict(sorted(count.items())) for name, count in counts.items()},
        cleaning_rules_fired=dict(sorted(source.fired_rules.items())),
        set_aside=len(source.set_aside),
        set_aside_by_reason=count_reasons(source),
        sha256=hashes,
    )


if __name__ == "__main__":
    main()
