"""`python -m tools.fuzz --minutes 60`: give broken files, made by hypothesis, to the readers of people's files.

A reader may accept its input or raise `UserError`, whose message starts with the file's name and is a few printable
lines. The examples are good files with some edits, files of the right shape with odd values, and random bytes. Seeds
count up from `--seed`; the same seed makes the same examples. tests/tools/test_fuzz.py runs a few hundred.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from operator import methodcaller
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from captioning.base.errors import UserError
from captioning.base.quoting import MAX_FAULTS
from captioning.data.readers.folder.forms import read_folder
from captioning.data.readers.rows import MAX_CHARACTERS, MAX_WORDS
from captioning.images.table import clean_caption
from captioning.params.load import load_params
from tests.helpers.dirty import parameters, tables

EXAMPLES = 200  # for each seed and reader
MAX_MESSAGE = 10_000  # characters
SEPARATORS = (b"", b"\0", b"\r", b"\n", b"\r\n", b'"', b'""', b"'", b",", b";", b"\t", b" ")
ENCODINGS = (b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[2J")
CHARACTERS = [letter.encode() for letter in "\u202e\u2028\u200b\U0001f6a2\u0301"]
NAMES = (b"..", b"/", b"../a.jpg", b"a.jpg", b"=1+1", b"<image>", b"A port .")
LONG = (b"port " * 300, b"x" * 3000, b"9" * 5000, b"[" * 50, b"{a: " * 30)
YAML_MARKS = (b"[", b"]", b"{", b"}", b":", b": ", b"- ", b"? ", b"|\n", b">\n", b"&a ", b"*a", b"<<: ", b"#", b"=")
YAML_LINES = (b"!!python/object/apply:os.system ", b"!!int ", b"!", b"%YAML 1.1\n---\n", b"---\n", b"...\n")
WORDS = (b"~", b"null", b"true", b"yes", b".nan", b".inf", b"NaN", b"{}", b"[]")
NUMBERS = (b"1e999", b"-1", b"0x1f", b"1_0", b"2001-99-99", b"0o9", b"1:2:3", b"-0", b"1.5")
ESCAPES = (b"\\", b'"\\ud800"', b'"\\U00110000"', b'"\\x"', b'"\\ud800\\udc00"', b"\\u0000")
YAML_ODD = (*YAML_MARKS, *YAML_LINES, *WORDS, *NUMBERS, *ESCAPES)
ODD = [*SEPARATORS, *ENCODINGS, *CHARACTERS, *NAMES, *LONG, *YAML_ODD]
ENCODE = methodcaller("encode", "utf-8", "surrogatepass")
Edit = tuple[float, int, bytes]  # where, as a share of the length; bytes to replace; the new bytes
Reader = tuple[st.SearchStrategy[bytes], Callable[[bytes, Path], None]]


def apply_edits(content: bytes, edits: Sequence[Edit]) -> bytes:
    """Replace bytes of `content`; a negative number of bytes duplicates the line instead."""
    for share, length, new in edits:
        start = int(share * len(content))
        if length < 0:
            line, end = content.rfind(b"\n", 0, start) + 1, content.find(b"\n", start) + 1 or len(content)
            content = content[:end] + new + content[line:end] + content[end:]
        else:
            content = content[:start] + new + content[start + length :]
    return content


def files(good: bytes, *well_formed: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    new = st.one_of(st.sampled_from(ODD), st.binary(max_size=8), st.text(max_size=8).map(ENCODE))
    edits = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(-1, 30), new), min_size=1, max_size=3)
    edited = edits.map(lambda some_edits: apply_edits(good, some_edits))
    return st.one_of(edited, edited, *well_formed, st.binary(max_size=400))


def table_file(rows: list[list[str]]) -> bytes:
    quoted = (",".join('"' + field.replace('"', '""') + '"' for field in row) for row in rows)
    return ENCODE("\n".join([tables.HEADER, *quoted]))


def params_file(replacements: list[tuple[int, bytes]]) -> bytes:
    """Replace values of the good file; the numbers choose lines."""
    lines = parameters.GOOD.split(b"\n")
    for number, value in replacements:
        key, colon, _ = lines[number % len(lines)].partition(b":")
        lines[number % len(lines)] = key + colon + b" " + value
    return b"\n".join(lines)


SOURCE, SPLIT = st.sampled_from(["UCM"] * 9 + [" ", "x\x00"]), st.sampled_from(["train", "", "val"] * 3 + ["dev"])
FIELD = st.one_of(st.text(max_size=30), st.sampled_from(ODD).map(lambda word: word.decode("utf-8", "replace")))
NAME, CAPTION = st.one_of(st.sampled_from(["a.jpg", "b.jpg"]), FIELD), st.one_of(st.just("A port ."), FIELD)
ROWS = st.lists(st.tuples(SOURCE, SPLIT, NAME, *[CAPTION] * 5).map(list), max_size=4)
VALUE = st.one_of(st.sampled_from(ODD), st.text(max_size=12).map(ENCODE), st.integers().map(lambda n: b"%d" % n))
REPLACEMENTS = st.lists(st.tuples(st.integers(0, 10**6), VALUE), min_size=1, max_size=4)


def read_table(content: bytes, scratch: Path) -> None:
    """Read a table and its rows: captions are clean, and what is set aside has a printable reason."""
    (scratch / "captions.csv").write_bytes(content)
    source = read_folder(scratch)
    for image in source:
        assert image.id.isprintable() and not any(map(str.isspace, image.id)) and 1 <= len(image.captions) <= 5
        for caption in image.captions:
            assert clean_caption(caption) == (caption, ()) and len(caption) <= MAX_CHARACTERS
            assert len(caption.split()) <= MAX_WORDS
    assert all(row.reason and row.reason.isprintable() for row in source.set_aside)


def read_params(content: bytes, scratch: Path) -> None:
    (scratch / "params.yaml").write_bytes(content)
    load_params(scratch / "params.yaml")


READERS: dict[str, Reader] = {
    "captions.csv": (files(tables.GOOD, ROWS.map(table_file)), read_table),
    "params.yaml": (files(parameters.GOOD, REPLACEMENTS.map(params_file)), read_params),
}


def fuzz(reader: str, examples: int, seed_number: int, scratch: Path, counts: Counter[str]) -> None:
    """Try `examples` of a seed. Raises the reader's unexpected error, for the smallest such example."""
    strategy, read = READERS[reader]

    def check(content: bytes) -> None:
        try:
            read(content, scratch)
            outcome = "accepted"
        except UserError as error:
            outcome, message = "refused", str(error)
            assert message.startswith(str(scratch)) and all(line.isprintable() for line in message.split("\n"))
            assert message.count("\n") <= MAX_FAULTS + 1 and len(message) <= MAX_MESSAGE
        counts.update([reader, f"{reader} {outcome}"])

    phases, health_checks = (Phase.generate, Phase.shrink), list(HealthCheck)
    options = settings(max_examples=examples, deadline=None, database=None, phases=phases, print_blob=False)
    seed(seed_number)(settings(options, suppress_health_check=health_checks)(given(strategy)(check)))()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as scratch:
        tables.good_folder(Path(scratch))
        for number in count(options.seed):
            for reader in READERS:
                fuzz(reader, EXAMPLES, number, Path(scratch), counts)
            if time.monotonic() > end:
                break
    for reader in READERS:
        accepted, refused = counts[f"{reader} accepted"], counts[f"{reader} refused"]
        print(f"{reader}: {counts[reader]} tried, {accepted} accepted, {refused} refused")
    print(f"seeds {options.seed} to {number}; only UserError was raised")


if __name__ == "__main__":
    main()
