"""Small data sets in the forms in which people have them: four images, with two captions each, in three splits.

`write_...` writes a form to a folder. All of them hold `IMAGES`, in the same order.
"""

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGES = (  # class, file name, split in RISC's words
    ("airport", "airport_1.jpg", "train"),
    ("airport", "airport_2.jpg", "train"),
    ("port", "port_1.jpg", "val"),
    ("port", "port_2.jpg", "test"),
)
PUBLISHED = {"train": "Train", "val": "valid", "test": "test"}


def captions(name: str) -> list[str]:
    return [f"This is {name.partition('.')[0]} .", f"Here one sees {name.partition('.')[0]} ."]


def jpeg(name: str) -> bytes:
    buffer = io.BytesIO()
    Image.frombytes("RGB", (8, 8), random.Random(name).randbytes(192)).save(buffer, "JPEG")
    return buffer.getvalue()


def save(path: Path, content: bytes | str | Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def save_csv(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    save(path, text.getvalue())


def write_risc(folder: Path) -> None:
    rows = [["DRAWN", PUBLISHED[split], name, *captions(name)] for _, name, split in IMAGES]
    save_csv(folder / "captions.csv", [["source", "split", "image", "caption_1", "caption_2"], *rows])
    for _, name, _ in IMAGES:
        save(folder / "resized" / name, jpeg(name))


def write_karpathy(folder: Path, name: str = "DRAWN", images: tuple[tuple[str, str, str], ...] = IMAGES) -> None:
    entries = [
        {
            "filename": file,
            "imgid": k,
            "split": PUBLISHED[split],
            "sentences": [{"raw": text} for text in captions(file)],
        }
        for k, (_, file, split) in enumerate(images)
    ]
    save(folder / name / f"dataset_{name.lower()}.json", {"images": entries})
    for _, file, _ in images:
        save(folder / name / f"{name}_images" / file, jpeg(f"{name} {file}" if images is not IMAGES else file))


def write_nwpu(folder: Path) -> None:
    classes: dict[str, list[dict[str, str]]] = {}
    for class_, name, split in IMAGES:
        first, second = captions(name)
        entry = {"raw_1": second, "filename": name, "split": PUBLISHED[split], "raw": first, "sentids": "7"}
        classes.setdefault(class_, []).append(entry)
        save(folder / "DRAWN" / class_ / name, jpeg(name))
    save(folder / "dataset_DRAWN.json", classes)


def write_coco(folder: Path) -> None:
    for split in ("train", "val", "test"):
        images = [(k, name) for k, (_, name, own) in enumerate(IMAGES) if own == split]
        texts = [{"image_id": k, "caption": text} for k, name in images for text in captions(name)]
        content = {"info": {}, "images": [{"id": k, "file_name": name} for k, name in images], "annotations": texts}
        save(folder / f"DRAWN/annotations/captions_{split}2017.json", content)
        save(folder / f"DRAWN/annotations/instances_{split}2017.json", content | {"annotations": [{"image_id": 1}]})
        for _, name in images:
            save(folder / f"DRAWN/{split}2017" / name, jpeg(name))


def metadata(split: str, is_list: bool) -> list[dict[str, Any]]:
    """Return rows of an image folder: one an image with a list, or one a caption."""
    names = [name for _, name, own in IMAGES if own == split]
    if is_list:
        return [{"file_name": name, "captions": captions(name)} for name in names]
    return [{"file_name": name, "text": text} for name in names for text in captions(name)]


def write_image_folder(folder: Path, ending: str, is_list: bool = False) -> None:
    for split, own in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows, path = metadata(own, is_list), folder / f"DRAWN/{split}/metadata{ending}"
        for row in rows:
            save(path.with_name(row["file_name"]), jpeg(row["file_name"]))
        if ending == ".csv":
            save_csv(path, [list(rows[0]), *([str(value) for value in row.values()] for row in rows)])
        elif ending == ".jsonl":
            save(path, "".join(f"{json.dumps(row)}\n" for row in rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)


def write_list(folder: Path) -> None:
    rows = [{"image": f"DRAWN/images/{name}", "caption": captions(name), "split": split} for _, name, split in IMAGES]
    save(folder / "DRAWN/captions.json", rows)
    for _, name, _ in IMAGES:
        save(folder / "DRAWN/images" / name, jpeg(name))


def write_shards(folder: Path) -> None:
    for split in ("train", "val", "test"):
        rows = [
            {
                "image": {"bytes": jpeg(name), "path": f"DRAWN_images/{name}"},
                "captions": captions(name),
                "source": "DRAWN",
            }
            for _, name, own in IMAGES
            if own == split
        ]
        path = folder / f"data/{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)


FORMS: dict[str, Callable[[Path], None]] = {
    "captions.csv": write_risc,
    "Karpathy's JSON": write_karpathy,
    "NWPU's JSON": write_nwpu,
    "COCO captions": write_coco,
    "metadata.csv": lambda folder: write_image_folder(folder, ".csv"),
    "metadata.csv with lists as text": lambda folder: write_image_folder(folder, ".csv", is_list=True),
    "metadata.jsonl": lambda folder: write_image_folder(folder, ".jsonl"),
    "metadata.jsonl with lists": lambda folder: write_image_folder(folder, ".jsonl", is_list=True),
    "metadata.parquet": lambda folder: write_image_folder(folder, ".parquet"),
    "metadata.parquet with lists": lambda folder: write_image_folder(folder, ".parquet", is_list=True),
    "a list of rows in JSON": write_list,
    "Parquet shards": write_shards,
}
