"""Measure the memory that reading a source takes: noise in RISC's full size, read and written as by `download`.

    python -m tools.memory folder archive shards one-group --images 44521

Each kind is read in a new process, whose peak resident memory is measured; `one-group` is a single Parquet file with a
single row group. `tests/data/readers/test_memory.py` runs a small size.
"""

import argparse
import csv
import io
import json
import re
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
SHARD_ROWS = 5_000


def jpegs(images: int) -> Iterator[tuple[str, bytes]]:
    """Yield names and distinct files: a hundred images, made distinct by a comment behind the end marker."""
    contents = []
    for seed in range(100):
        buffer, rng = io.BytesIO(), np.random.default_rng(seed)
        coarse = Image.fromarray(rng.integers(0, 256, (SIZE // 2, SIZE // 2, 3), dtype=np.uint8))
        coarse.resize((SIZE, SIZE)).save(buffer, "JPEG", quality=QUALITY)
        contents.append(buffer.getvalue())
    for number in range(images):
        yield f"NWPU_{number}.jpg", contents[number % 100] + b"%d" % number


def captions(number: int) -> list[str]:
    return [f"There are {number} noisy dots of way {way} in the picture ." for way in range(5)]


def write_source(kind: str, folder: Path, images: int) -> None:
    """Write a source of `kind`."""
    if kind not in ("folder", "archive"):
        return write_shards(folder, images, images if kind == "one-group" else SHARD_ROWS)
    (folder / "resized").mkdir()
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = (["NWPU", "train", f"NWPU_{number}.jpg", *captions(number)] for number in range(images))
        csv.writer(file).writerows([list(COLUMNS), *rows])
    with zipfile.ZipFile(folder / "RISCM.zip", "w") as archive:
        archive.write(folder / "captions.csv", "captions.csv", zipfile.ZIP_DEFLATED)
        for name, content in jpegs(images):
            if kind == "folder":
                (folder / "resized" / name).write_bytes(content)
            else:
                archive.writestr(f"resized/{name}", content)


def write_shards(folder: Path, images: int, shard_rows: int) -> None:
    """Write Parquet files of one row group each."""
    files, number = jpegs(images), 0
    while rows := list(islice(files, shard_rows)):
        texts = dict(zip(CAPTIONS, captions(number), strict=True))
        table = pa.Table.from_pylist([{"image": {"bytes": content, "path": name}} | texts for name, content in rows])
        pq.write_table(table, folder / f"train-{number:05d}.parquet", row_group_size=len(rows))
        number += 1


def open_source(kind: str, folder: Path) -> Source:
    from captioning.data.readers.archive import read_archive
    from captioning.data.readers.folder.forms import read_folder

    return read_archive(folder / "RISCM.zip") if kind == "archive" else read_folder(folder)


def measure(kind: str, folder: Path) -> dict[str, float]:
    """Read and write in this process: images, seconds, peak resident memory in MiB."""
    from captioning.images.table import write_parquet

    start = time.monotonic()
    images = write_parquet(open_source(kind, folder), folder / "out" / "images.parquet")
    seconds, status = time.monotonic() - start, Path("/proc/self/status").read_text()
    peak_kib = int(re.findall(r"VmHWM:\s+(\d+)", status)[0])  # getrusage would include the parent process
    return {"images": images, "seconds": round(seconds, 1), "peak_mib": round(peak_kib / 1024)}


def measure_in_new_process(kind: str, images: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        for step in ("write", "measure"):  # in two processes: the writer's memory does not count
            arguments = [kind, "--images", str(images), "--step", step, "--in", folder]
            command = [sys.executable, "-m", "tools.memory", *arguments]
            process = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(process.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="+", choices=KINDS)
    parser.add_argument("--images", type=int, default=44_521)
    parser.add_argument("--step", choices=("write", "measure"))
    parser.add_argument("--in", dest="folder", type=Path)
    options = parser.parse_args()
    for kind in options.kinds:
        if options.step == "write":
            write_source(kind, options.folder, options.images)
        elif options.step == "measure":
            print(json.dumps(measure(kind, options.folder)))
        else:
            print(kind, measure_in_new_process(kind, options.images))
