"""Clean captions, and write and read the Parquet table of captioned images.

The file carries the feature metadata of Hugging Face `datasets`, so `load_dataset("parquet", data_files=...)` decodes
`image` by itself; it is written and read here with pyarrow alone.

1. Cleaning changes bytes, never words: misspellings and RSICD's lower case stay as published.
2. A caption ends in " .", as 99.99 % of RISC's captions do, so that the form of the ending does not identify a source.
"""

import json
import random
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.base.errors import UserError
from captioning.base.files import atomic_file

ROW_GROUP = 500  # images; bounds the memory of writing and reading
ZERO_WIDTH = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))  # soft hyphen, spaces, joiners, BOM
SPACES = re.compile(r"[\t\n\v\f\r\x85\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
QUOTES = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"'}
)
DIRECTION = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # Unicode's bidirectional controls
UNSPACED = re.compile(  # a letter of Thai, Lao, Tibetan, Burmese, Khmer, kana or ideographs: words without spaces
    r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        ("captions", pa.list_(pa.string())),
        ("facts", pa.string()),
    ]
)
_STRING = {"dtype": "string", "_type": "Value"}
_FEATURES = {field.name: _STRING for field in SCHEMA} | {
    "image": {"_type": "Image"},
    "captions": {"feature": _STRING, "_type": "List"},
}


@dataclass(frozen=True)
class CaptionedImage:
    """An image of a source: its encoded bytes, one or more clean captions, and JSON of what was drawn, or ""."""

    id: str
    source: str
    split: str  # the source's own split: train, val, test or ""
    image: bytes
    path: str  # the file's name without its folder
    captions: tuple[str, ...]
    facts: str = ""


CLEANING_RULES: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("zero-width characters removed", lambda text: text.translate(ZERO_WIDTH)),
    ("marks of direction removed", lambda text: DIRECTION.sub("", text)),
    ("unusual spaces made plain", lambda text: SPACES.sub(" ", text)),
    ("control characters removed", lambda text: CONTROL.sub("", text)),
    ("unicode composed", lambda text: unicodedata.normalize("NFC", text)),
    ("curly quotes straightened", lambda text: text.translate(QUOTES)),
    ("repeated spaces collapsed", lambda text: re.sub(r"  +", " ", text)),
    ("outer spaces stripped", lambda text: text.strip(" ")),
    ("repeated period collapsed", lambda text: re.sub(r"\.(?: ?\.)+", ".", text)),
    ("final period added", lambda text: text if not text or text[-1] in ".!?" else f"{text} ."),
    ("final period set apart", lambda text: re.sub(r"(?<=[^ .])\.$", " .", text)),
)


def clean_caption(text: str) -> tuple[str, tuple[str, ...]]:
    """Clean a caption, and name the rules that changed it; a clean caption does not change again."""
    names = []
    for name, clean in CLEANING_RULES:
        cleaned = clean(text)
        if cleaned != text:
            names.append(name)
        text = cleaned
    return text, tuple(names)


def is_nearly_empty(caption: str) -> bool:
    """Return whether `caption` has fewer than two words with a letter, as " ." and "1 ." do.

    In a script without spaces, each letter counts as a word.
    """
    words = sum(max(any(map(str.isalpha, word)), len(UNSPACED.findall(word))) for word in caption.split())
    return words < 2


def write_parquet(images: Iterable[CaptionedImage], path: Path) -> int:
    """Write `images` in their order, `ROW_GROUP` at a time, and return their number; same images, same bytes."""
    schema = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": _FEATURES}})})
    remaining, written = iter(images), 0
    options = {"compression": "zstd", "use_dictionary": ["source", "split"], "write_statistics": ["id"]}
    with atomic_file(path) as partial, pq.ParquetWriter(partial, schema, **options) as writer:
        while group := list(islice(remaining, ROW_GROUP)):
            rows = [vars(image) | {"image": {"bytes": image.image, "path": image.path}} for image in group]
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            written += len(group)
    return written


def read_table(path: Path, ids: Sequence[str] | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the rows of `ids` in their order (None: all, in the file's order), with `columns` (None: all).

    Reads only the row groups that hold one of `ids`. Raises `UserError` if the file or an id is missing.
    """
    file, names = _open(path), list(columns) if columns else None
    if ids is None:
        return file.read(columns=names)
    rows = _find_rows(file, path, ids)
    order = sorted(set(rows))
    tables = [file.read_row_groups([], columns=names), *_read_rows(file, order, names)]
    positions = {row: position for position, row in enumerate(order)}
    return pa.concat_tables(tables).take(pa.array([positions[row] for row in rows], pa.int64()))


def read_images(path: Path, ids: Sequence[str] | None = None) -> list[CaptionedImage]:
    """Read the images of `ids` in their order (None: all, in the file's order). Raises `UserError` as `read_table`."""
    if ids is None:
        return list(stream_images(path))
    file = _open(path)
    rows = sorted(set(_find_rows(file, path, ids)))
    images = {image.id: image for table in _read_rows(file, rows) for image in _to_images(table)}
    return [images[id_] for id_ in ids]


def stream_images(path: Path) -> Iterator[CaptionedImage]:
    """Yield all images in the file's order, with one row group in memory at a time."""
    for batch in _open(path).iter_batches(batch_size=ROW_GROUP):
        yield from _to_images(batch)


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Read the captions by id, in the file's order, without the images."""
    rows = read_table(path, None, ["id", "captions"]).to_pylist()
    return {row["id"]: tuple(row["captions"]) for row in rows}


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}; run `dvc repro download`") from None


def _find_rows(file: pq.ParquetFile, path: Path, ids: Sequence[str]) -> list[int]:
    rows = {id_: row for row, id_ in enumerate(file.read(columns=["id"])["id"].to_pylist())}
    if missing := [id_ for id_ in ids if id_ not in rows]:
        raise UserError(f"{path}: {missing[0]!r} and {len(missing) - 1} more ids are missing; run `dvc repro split`")
    return [rows[id_] for id_ in ids]


def _read_rows(file: pq.ParquetFile, rows: Sequence[int], columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield `rows` (ascending) as a table for each row group that holds some of them."""
    start = 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        if in_group := [row - start for row in rows[bisect_left(rows, start) : bisect_left(rows, end)]]:
            yield file.read_row_group(group, columns=columns).take(in_group)
        start = end


def _to_images(table: pa.Table | pa.RecordBatch) -> Iterator[CaptionedImage]:
    for row in table.to_pylist():
        image, captions = row.pop("image"), tuple(row.pop("captions"))
        yield CaptionedImage(**row, image=image["bytes"], path=image["path"], captions=captions)


def read_ids(path: Path) -> list[str]:
    """Read the ids of a split's file. Raises `UserError` if it holds none."""
    try:
        ids = path.read_text(encoding="utf-8").strip("\n").split("\n")
    except UnicodeDecodeError:
        ids = []
    if not any(ids):
        raise UserError(f"{path}: no ids of images; run `dvc repro`, which writes it again")
    return ids


def draw_ids(ids: Sequence[str], number: int, seed: str) -> list[str]:
    """Draw `number` of `ids` and sort them; return all as they are if `number` is 0 or not smaller than their count."""
    return sorted(random.Random(seed).sample(list(ids), number)) if 0 < number < len(ids) else list(ids)


def apportion(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divide `total` into integers by `shares` (of sum 1) and largest remainder; ties go to the first name."""
    counts = {name: int(total * share + 1e-9) for name, share in shares.items()}
    remainders = sorted(shares, key=lambda name: counts[name] - total * shares[name])
    for name in remainders[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
