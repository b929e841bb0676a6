"""Captioned images: what one is, how its captions are cleaned, and the Parquet file that holds them.

The file carries the feature metadata of Hugging Face `datasets`, so `load_dataset("parquet", data_files=...)` decodes
`image` by itself; it is written and read here with pyarrow alone.

1. Cleaning changes bytes, never words: misspellings and RSICD's lower case stay as they were published.
2. A caption ends in " .", the form of 99.99 % of RISC's captions, so that no style of ending tells a source.
"""

import json
import random
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from captioning.base.errors import UserError
from captioning.base.files import atomic_file

ROW_GROUP = 500  # images; bounds the memory of writing and reading
ZERO_WIDTH = "\u00ad\u200b\u200c\u200d\u2060\ufeff"  # soft hyphen, spaces, joiners, byte-order mark
SPACES = re.compile(r"[\t\n\v\f\r\x85\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
QUOTES = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u201c": '"', "\u201d": '"', "\u201e": '"'}
)
DIRECTION = re.compile(r"[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # Unicode's bidirectional controls
UNSPACED = re.compile(  # a letter each of Thai, Lao, Tibetan, Burmese, Khmer, kana and ideographs: no spaces part words
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
    """One image as its source gave it: encoded bytes, one to five clean captions, JSON of what was drawn or ""."""

    id: str
    source: str
    split: str  # the data set's own: train, val, test or ""
    image: bytes
    path: str  # the file's name, no folder
    captions: tuple[str, ...]
    facts: str = ""


def clean_caption(text: str) -> tuple[str, tuple[str, ...]]:
    """`text` in its clean form and the names of the rules that changed it; idempotent. "" where nothing is left."""
    fired = []
    for rule, clean in _RULES:
        cleaned = clean(text)
        if cleaned != text:
            fired.append(rule)
        text = cleaned
    return text, tuple(fired)


def _final_period(text: str) -> str:
    return text if not text or text[-1] in ".!?" else f"{text} ."


_RULES = (
    ("zero-width characters removed", lambda text: text.translate(dict.fromkeys(map(ord, ZERO_WIDTH)))),
    ("marks of direction removed", lambda text: DIRECTION.sub("", text)),
    ("unusual spaces made plain", lambda text: SPACES.sub(" ", text)),
    ("control characters removed", lambda text: CONTROL.sub("", text)),
    ("unicode composed", lambda text: unicodedata.normalize("NFC", text)),
    ("curly quotes straightened", lambda text: text.translate(QUOTES)),
    ("repeated spaces collapsed", lambda text: re.sub(r"  +", " ", text)),
    ("outer spaces stripped", lambda text: text.strip(" ")),
    ("repeated period collapsed", lambda text: re.sub(r"\.(?: ?\.)+", ".", text)),
    ("final period added", _final_period),
    ("final period set apart", lambda text: re.sub(r"(?<=[^ .])\.$", " .", text)),
)
RULES = tuple(name for name, _ in _RULES)


def is_nearly_empty(caption: str) -> bool:
    """Whether `caption` holds fewer than two words with a letter, as " ." and "1 ." do.

    Where a script sets no spaces, each letter counts as a word.
    """
    words = sum(max(any(map(str.isalpha, word)), len(UNSPACED.findall(word))) for word in caption.split())
    return words < 2


def write_parquet(images: Iterable[CaptionedImage], path: Path) -> int:
    """Write `images` in their order, `ROW_GROUP` at a time, and return how many; same images, same bytes."""
    schema = SCHEMA.with_metadata({"huggingface": json.dumps({"info": {"features": _FEATURES}})})
    rows, written = iter(images), 0
    options = {"compression": "zstd", "use_dictionary": ["source", "split"], "write_statistics": ["id"]}
    with atomic_file(path) as partial, pq.ParquetWriter(partial, schema, **options) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist([_row(one) for one in group], schema=schema))
            written += len(group)
    return written


def _row(one: CaptionedImage) -> dict[str, object]:
    return {
        "id": one.id,
        "source": one.source,
        "split": one.split,
        "image": {"bytes": one.image, "path": one.path},
        "captions": list(one.captions),
        "facts": one.facts,
    }


def read_table(path: Path, ids: Sequence[str] | None = None, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of `ids` in their order (None: all, in the file's), with `columns` (None: all).

    Reads only the row groups that hold a wanted image. Raises `UserError` where the file or an id is missing.
    """
    file = _open(path)
    chosen = columns and list(columns)
    if ids is None:
        return file.read(columns=chosen)
    wanted = _row_numbers(file, path, ids)
    order = sorted(set(wanted))
    pieces = [file.read_row_group(group, columns=chosen).take(rows) for group, rows in _by_group(file, order)]
    if not pieces:
        return file.read(columns=chosen).slice(0, 0)
    place = {row: index for index, row in enumerate(order)}
    return pa.concat_tables(pieces).take([place[row] for row in wanted])


def _open(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}; run download again") from None


def _row_numbers(file: pq.ParquetFile, path: Path, ids: Sequence[str]) -> list[int]:
    rows = {id_: row for row, id_ in enumerate(file.read(columns=["id"])["id"].to_pylist())}
    missing = [id_ for id_ in ids if id_ not in rows]
    if missing:
        raise UserError(f"{path}: {missing[0]!r} and {len(missing) - 1} more ids are not in it; run split again")
    return [rows[id_] for id_ in ids]


def _by_group(file: pq.ParquetFile, rows: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Row groups that hold some of `rows` (ascending, of the file), with those rows' numbers within the group."""
    begin = 0
    for group in range(file.num_row_groups):
        end = begin + file.metadata.row_group(group).num_rows
        here = [row - begin for row in rows[bisect_left(rows, begin) : bisect_left(rows, end)]]
        if here:
            yield group, here
        begin = end


def read_examples(path: Path, ids: Sequence[str] | None = None) -> list[CaptionedImage]:
    """The images of `ids` in their order (None: all, in the file's). Raises `UserError` as `read_table` does."""
    if ids is None:
        return list(stream_examples(path))
    file = _open(path)
    wanted = _row_numbers(file, path, ids)
    found: dict[str, CaptionedImage] = {}
    for group, rows in _by_group(file, sorted(set(wanted))):
        for batch in file.read_row_group(group).take(rows).to_batches():
            found |= {example.id: example for example in _examples(batch)}
    return [found[id_] for id_ in ids]


def stream_examples(path: Path) -> Iterator[CaptionedImage]:
    """Every image in the file's order, one row group in memory at a time."""
    for batch in _open(path).iter_batches(batch_size=ROW_GROUP):
        yield from _examples(batch)


def _examples(batch: pa.RecordBatch) -> Iterator[CaptionedImage]:
    for row in batch.to_pylist():
        image, captions = row.pop("image"), tuple(row.pop("captions"))
        yield CaptionedImage(**row, image=image["bytes"], path=image["path"], captions=captions)


def read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    """Captions by id, in the file's order, without reading the images."""
    table = read_table(path, None, ["id", "captions"])
    ids, captions = table["id"].to_pylist(), table["captions"].to_pylist()
    return {id_: tuple(of_image) for id_, of_image in zip(ids, captions, strict=True)}


def read_ids(path: Path) -> list[str]:
    """The ids of a split's file. Raises `UserError` where it holds none."""
    try:
        ids = path.read_text(encoding="utf-8").split()
    except UnicodeDecodeError:
        ids = []
    if not ids:
        raise UserError(f"{path}: no ids of images; run `dvc repro`, which writes it anew")
    return ids


def draw_ids(ids: Sequence[str], number: int, seed: str) -> list[str]:
    """`number` of `ids`, sorted; all, as they stand, where `number` is 0 or no less than there are."""
    return sorted(random.Random(seed).sample(list(ids), number)) if 0 < number < len(ids) else list(ids)


def apportion(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers that sum to `total`, nearest to `shares` (of sum 1) by largest remainder; ties go to the first."""
    counts = {name: int(total * share + 1e-9) for name, share in shares.items()}
    remainders = sorted(shares, key=lambda name: counts[name] - total * shares[name])
    for name in remainders[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
