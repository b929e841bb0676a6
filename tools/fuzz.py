"""`python -m tools.fuzz --minutes 60`: what readers of people's files do with broken ones, made by hypothesis.

A reader may take its input or raise `UserError`; the error names the file and is printable, of few lines. Examples are
good files with some edits, files of the right shape with odd values, and bytes. `--seed` is where the numbering of
seeds begins; the same seed makes the same examples. tests/tools/test_fuzz.py runs a few hundred.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from captioning.base.errors import UserError
from captioning.base.quoting import MAX_FAULTS
from captioning.data.readers.folder import read_folder
from captioning.data.readers.rows import MAX_CHARACTERS, MAX_WORDS
from captioning.evaluation.predictions import read_predictions
from captioning.images.table import clean_caption
from captioning.params.load import load_params
from tests.helpers.dirty import captioned, parameters, tables

SLICE = 200  # examples a seed and reader
LONGEST = 10_000  # characters of an error
ODD = [
    b"", b"\0", b"\r", b"\n", b"\r\n", b'"', b'""', b"'", b",", b";", b"\t", b" ", b"\xff", b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x1b[2J", "\u202e".encode(), "\u2028".encode(), "\u200b".encode(), "\U0001f6a2".encode(), "\u0301".encode(),
    b"..", b"/", b"../a.jpg", b"a.jpg", b"=1+1", b"<image>", b"A port .", b"port " * 300, b"x" * 3000, b"9" * 5000,
    b"[", b"]", b"{", b"}", b"[" * 50, b"{a: " * 30, b":", b": ", b"- ", b"? ", b"|\n", b">\n", b"&a ", b"*a", b"<<: ",
    b"!!python/object/apply:os.system ", b"!!int ", b"!", b"%YAML 1.1\n---\n", b"---\n", b"...\n", b"#", b"~", b"null",
    b"true", b"yes", b".nan", b".inf", b"1e999", b"-1", b"0x1f", b"1_0", b"2001-99-99", b"0o9", b"1:2:3", b"=", b"\\",
    b'"\\ud800"', b'"\\U00110000"', b'"\\x"', b'"\\ud800\\udc00"', b"\\u0000", b"-0", b"1.5", b"NaN", b"{}", b"[]",
]  # fmt: skip
Edits = Sequence[tuple[float, int, bytes]]
Reader = tuple[st.SearchStrategy[bytes], Callable[[bytes, Path], None]]


def edited(good: bytes, edits: Edits) -> bytes:
    """`good` with, at a share of its length, so many bytes replaced; fewer than none: a line doubled."""
    for share, length, new in edits:
        place = int(share * len(good))
        if length < 0:
            begin, end = good.rfind(b"\n", 0, place) + 1, good.find(b"\n", place) + 1
            good = good[: end or len(good)] + new + good[begin : end or len(good)] + good[end or len(good) :]
        else:
            good = good[:place] + new + good[place + length :]
    return good


def edits() -> st.SearchStrategy[Any]:
    places = st.floats(0, 1, exclude_max=True)
    new = st.one_of(st.sampled_from(ODD), st.binary(max_size=8), st.text(max_size=8).map(_encoded))
    return st.lists(st.tuples(places, st.integers(-1, 30), new), min_size=1, max_size=3)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def files(good: bytes, *shaped: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    changed = edits().map(lambda some: edited(good, some))
    return st.one_of(changed, changed, *shaped, st.binary(max_size=400))


def _table_of(rows: list[list[str]]) -> bytes:
    quoted = (",".join('"' + field.replace('"', '""') + '"' for field in row) for row in rows)
    return _encoded("\n".join([tables.HEADER, *quoted]))


def _params_of(pairs: list[tuple[int, bytes]]) -> bytes:
    """Values of the good file replaced, on the lines that have one."""
    lines = parameters.GOOD.split(b"\n")
    for place, value in pairs:
        key, colon, _ = lines[place % len(lines)].partition(b":")
        lines[place % len(lines)] = key + colon + b" " + value
    return b"\n".join(lines)


FIELD = st.one_of(st.text(max_size=30), st.sampled_from(ODD).map(lambda word: word.decode("utf-8", "replace")))
ROW = st.tuples(
    st.sampled_from(["UCM"] * 9 + [" ", "x\x00"]), st.sampled_from(["train", "", "val"] * 3 + ["dev"]),
    st.one_of(st.sampled_from(["a.jpg", "b.jpg"]), FIELD), *[st.one_of(st.just("A port ."), FIELD)] * 5,
)  # fmt: skip
VALUE = st.one_of(st.sampled_from(ODD), st.text(max_size=12).map(_encoded), st.integers().map(lambda n: b"%d" % n))
RECORD = st.fixed_dictionaries(
    {}, optional={key: st.one_of(st.text(max_size=9), st.integers(), st.booleans(), st.none(), st.lists(st.none()))
                  for key in ("id", "caption", "tokens", "ended", "x")},
)  # fmt: skip


def read_tables(content: bytes, place: Path) -> None:
    """The rows, too: what is taken is clean, what is not has a printable reason."""
    path = place / "captions.csv"
    path.write_bytes(content)
    source = read_folder(place)
    for image in source:
        assert image.id.isprintable() and not any(map(str.isspace, image.id)) and 1 <= len(image.captions) <= 5
        for caption in image.captions:
            assert clean_caption(caption) == (caption, ()) and len(caption) <= MAX_CHARACTERS
            assert len(caption.split()) <= MAX_WORDS
    assert all(one.reason and one.reason.isprintable() for one in source.set_aside)


def read_params(content: bytes, place: Path) -> None:
    (place / "params.yaml").write_bytes(content)
    load_params(place / "params.yaml")


def read_captions(content: bytes, place: Path) -> None:
    (place / "mix-1.jsonl").write_bytes(content)
    found = read_predictions(place / "mix-1.jsonl", captioned.IDS)
    assert [one["id"] for one in found] == captioned.IDS
    "".join(one["caption"] for one in found).encode()


def _lines_of(records: list[dict[str, Any]]) -> bytes:
    import json

    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


READERS: dict[str, Reader] = {
    "captions.csv": (files(tables.GOOD, st.lists(ROW.map(list), max_size=4).map(_table_of)), read_tables),
    "params.yaml": (
        files(
            parameters.GOOD, st.lists(st.tuples(st.integers(0, 10**6), VALUE), min_size=1, max_size=4).map(_params_of)
        ),
        read_params,
    ),
    "predictions": (files(captioned.GOOD, st.lists(RECORD, max_size=4).map(_lines_of)), read_captions),
}


def fuzz(reader: str, examples: int, number: int, place: Path, tried: Counter[str]) -> None:
    """Try `examples` of seed `number`; raises what the reader should not have raised, of the smallest example."""
    strategy, read = READERS[reader]

    def check(content: bytes) -> None:
        try:
            read(content, place)
            outcome = "taken"
        except UserError as error:
            outcome = "refused"
            told = str(error)
            assert told.startswith(str(place)) and all(line.isprintable() for line in told.split("\n"))
            assert told.count("\n") <= MAX_FAULTS + 1 and len(told) <= LONGEST
        tried[reader] += 1
        tried[f"{reader} {outcome}"] += 1

    quiet = settings(
        max_examples=examples, deadline=None, database=None, phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    seed(number)(quiet(given(strategy)(check)))()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    tried: Counter[str] = Counter()
    end = time.monotonic() + 60 * chosen.minutes
    with tempfile.TemporaryDirectory() as scratch:
        tables.good_folder(Path(scratch))
        for number in count(chosen.seed):
            for reader in READERS:
                fuzz(reader, SLICE, number, Path(scratch), tried)
            if time.monotonic() > end:
                break
    for reader in READERS:
        print(
            f"{reader}: {tried[reader]} tried, {tried[f'{reader} taken']} taken, {tried[f'{reader} refused']} refused"
        )
    print(f"seeds {chosen.seed} to {number}; nothing but UserError came out")


if __name__ == "__main__":
    main()
