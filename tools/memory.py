"""How much memory a source takes: a full-size copy of RISC of noise, read and written as the stage `download` does.

    python -m tools.memory folder archive shards one-group --images 44521

Each kind is read in a process of its own, whose peak resident memory is measured; `one-group` is a single Parquet
file with a single row group. `tests/data/readers/test_memory.py` runs it small.
"""

import argparse
import csv
import io
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from captioning.data.readers.captions_csv import COLUMNS
from captioning.data.readers.rows import CAPTIONS, Source

KINDS = ("folder", "archive", "shards", "one-group")
SIZE, QUALITY = 224, 45  # of noise about 20 KB, as RISC's images have
SHARD = 5_000  # rows


def jpegs(images: int) -> Iterator[tuple[str, bytes]]:
    """Names and distinct files; a hundred pictures, told apart by a comment behind the end marker."""
    pictures = []
    for seed in range(100):
        buffer, rng = io.BytesIO(), np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (SIZE // 2, SIZE // 2, 3), dtype=np.uint8))
        coarse.resize((SIZE, SIZE)).save(buffer, "JPEG", quality=QUALITY)
        pictures.append(buffer.getvalue())
    for number in range(images):
        yield f"NWPU_{number}.jpg", pictures[number % 100] + b"%d" % number


def texts(number: int) -> list[str]:
    return [f"There are {number} noisy dots of way {way} in the picture ." for way in range(5)]


def write(kind: str, folder: Path, images: int) -> None:
    """RISC's full size as `kind` in `folder`."""
    if kind in ("folder", "archive"):
        (folder / "resized").mkdir()
        with (folder / "captions.csv").open("w", newline="") as file:
            rows = ([("NWPU"), "train", f"NWPU_{number}.jpg", *texts(number)] for number in range(images))
            csv.writer(file).writerows([list(COLUMNS), *rows])
        with zipfile.ZipFile(folder / "RISCM.zip", "w") as packed:
            packed.write(folder / "captions.csv", "captions.csv", zipfile.ZIP_DEFLATED)
            for name, content in jpegs(images):
                if kind == "folder":
                    (folder / "resized" / name).write_bytes(content)
                else:
                    packed.writestr(f"resized/{name}", content)
        return
    made, number = jpegs(images), 0
    while rows := list(islice(made, images if kind == "one-group" else SHARD)):
        table = pa.Table.from_pylist(
            [
                {"image": {"bytes": content, "path": name}} | dict(zip(CAPTIONS, texts(number), strict=True))
                for name, content in rows
            ]
        )
        pq.write_table(table, folder / f"train-{number:05d}.parquet", row_group_size=len(rows))
        number += 1


def opened(kind: str, folder: Path) -> Source:
    from captioning.data.readers.archive import archive
    from captioning.data.readers.folder import folder as loose
    from captioning.data.readers.shards import shards
    from captioning.data.sources import find_shards

    if kind == "archive":
        return archive(folder / "RISCM.zip")
    return loose(folder) if kind == "folder" else shards(find_shards(folder), "risc")


def peak_kib() -> int:
    """Most resident memory of this program: `getrusage` would count that of the process that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))


def measure(kind: str, folder: Path) -> dict[str, float]:
    """Read and write in this process: images, seconds, peak resident memory in MiB."""
    from captioning.images.table import write_parquet

    begun = time.monotonic()
    written = write_parquet(opened(kind, folder), folder / "out" / "images.parquet")
    peak = peak_kib() / 1024
    return {"images": written, "seconds": round(time.monotonic() - begun, 1), "peak_mib": round(peak)}


def in_a_process(kind: str, images: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        for step in ("write", "measure"):  # the writer's memory is none of the reader's
            command = [
                sys.executable,
                "-m",
                "tools.memory",
                kind,
                "--images",
                str(images),
                "--step",
                step,
                "--in",
                name,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="+", choices=KINDS)
    parser.add_argument("--images", type=int, default=44_521)
    parser.add_argument("--step", choices=("write", "measure"))
    parser.add_argument("--in", dest="folder", type=Path)
    options = parser.parse_args()
    for kind in options.kinds:
        if options.step == "write":
            write(kind, options.folder, options.images)
        elif options.step == "measure":
            print(json.dumps(measure(kind, options.folder)))
        else:
            print(kind, in_a_process(kind, options.images))
