"""captions.csv: `make` changes the bytes of a good folder's table (`FOLDERS`: the folder).

The good folder has `a.jpg` and `b.jpg`, and a row for each. `result`: the ids that remain, or the first caption of `a`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from captioning.data.readers.rows import LIST_SPLIT
from tests.helpers.dirty import AS_IT_IS, REFUSED, REPAIRED, SET_ASIDE, Case
from tests.helpers.dirty.images import encode

CAPTIONS = ["A port .", "Boats in a port .", "There is a port .", "It is a port .", "A port with boats ."]
HEADER = "source,split,image,caption_1,caption_2,caption_3,caption_4,caption_5"
ROWS = [f"UCM,train,{name},{','.join(CAPTIONS)}" for name in ("a.jpg", "b.jpg")]
GOOD = "\n".join([HEADER, *ROWS, ""]).encode()
Edit = Callable[[bytes], bytes]


def good_folder(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(encode("JPEG"))
    (folder / "captions.csv").write_bytes(GOOD)


def replace(old: str, new: str | bytes) -> Edit:
    return lambda content: content.replace(old.encode(), new if isinstance(new, bytes) else new.encode())


def with_caption(caption: str) -> Edit:
    """Set the first caption of `a.jpg`."""
    return replace("a.jpg,A port .", f'a.jpg,"{caption}"')


def with_captions(*captions: str) -> Edit:
    return replace(ROWS[0], f"UCM,train,a.jpg,{','.join(captions)}")


def with_name(name: str) -> Edit:
    return replace(",a.jpg,", f',"{name}",')


def quote_all(content: bytes) -> bytes:
    return b"\n".join(b'"' + line.replace(b",", b'","') + b'"' for line in content.splitlines())


def remove(name: str, folder: Path) -> None:
    (folder / name).unlink()


def replace_by_folder(name: str, folder: Path) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()


def add_image(name: str, folder: Path, row: bool = True) -> None:
    (folder / name).write_bytes(encode("PNG" if name.endswith("png") else "JPEG"))
    if row:
        with (folder / "captions.csv").open("a") as table:
            table.write(ROWS[0].replace("a.jpg", name) + "\n")


UNREADABLE = "the row that begins here cannot be read"
BAD_TABLES: list[tuple[str, Edit, str]] = [
    ("an empty file", lambda _: b"", ":1: no column image, caption_1"),
    ("a header without rows", lambda _: HEADER.encode(), ":2: no rows; every image needs one"),
    ("a missing column", replace(",caption_3", ",third"), ":1: no column caption_3"),
    ("a column twice", replace("caption_2", "caption_1"), ":1: column caption_1"),
    ("no header", replace(HEADER + "\n", ""), ":1: no column image, caption_1"),
    ("semicolons for commas", replace(",", ";"), ":1: semicolons separate its columns; save it with commas"),
    ("tabs for commas", replace(",", "\t"), ":1: tabs separate its columns; save it with commas"),
    ("UTF-16", lambda content: content.decode().encode("utf-16"), ":1: this is UTF-16; save it as CSV in UTF-8"),
    ("Windows-1252", replace("b.jpg,A port", b"b.jpg,A caf\xe9"), ":3: byte 0xe9"),
    ("an Excel workbook", lambda _: b"PK\x03\x04" + bytes(100), ":1: this is an Excel workbook or a zip archive"),
    ("an open quote", replace("b.jpg,A port", 'b.jpg,"A port'), f":3: {UNREADABLE} (unexpected end of data)"),
    ("words after a closing quote", replace("a.jpg,A port", 'a.jpg,"A" port'), f":2: {UNREADABLE} (',' expected"),
    ("a field of 200,000 characters", with_caption("x" * 200_000), f":2: {UNREADABLE} (field larger than"),
    ("a comma without quotes", replace("a.jpg,A port", "a.jpg,A big, port"), ":2: 'a.jpg' has too many fields"),
    ("an incomplete row", replace("It is a port .,A port with boats .\n", "It.\n"), ":2: 'a.jpg' has too few fields"),
    ("an unknown split", replace("UCM,train,b", "UCM,night,b"), ":3: split 'night'; use train, val, test"),
    ("no source", replace("UCM,train,b", " ,train,b"), ":3: 'b.jpg' has no source"),
    ("a source with an escape code", replace("UCM,train,b", "U\x1b[2JM,train,b"), ":3: source 'U\\x1b[2JM'"),
]
OUTSIDE = "its name is absolute or an address or holds .."
BAD_NAMES: list[tuple[str, str, str]] = [
    ("a name outside the folder", "../a.jpg", OUTSIDE),
    ("an absolute name", "/etc/passwd", OUTSIDE),
    ("dots for a name", "..", OUTSIDE),
    ("no name", "", "its name is no file name"),
    ("a Windows path", "C:\\pictures\\a.jpg", OUTSIDE),
    ("an address on the web", "https://example.org/a.jpg", OUTSIDE),
    ("a name with a space, unlike the file's", "a b.jpg", "no such file"),
    ("a name with a line break", "a\n.jpg", "its name holds a control character"),
    ("a name with NUL", "a\0.jpg", "its name holds a control character"),
    ("a name with a command for the terminal", "a\x1b[2J.jpg", "its name holds a control character"),
    ("a name that reads backwards", "a\u202egpj.jpg", "its name holds a control character"),
    ("a name of 300 letters", "a" * 296 + ".jpg", "its name is longer than 255 bytes"),
    ("a name that is a formula", "=cmd()", "no such file"),
]
BAD_CAPTIONS: list[tuple[str, str, str]] = [
    ("a caption of punctuation", "?! ... --- ;", "caption_1 is nearly empty: '?! . --- ; .'"),
    ("a caption of figures", "12 34 56 .", "caption_1 is nearly empty: '12 34 56 .'"),
    ("a caption of one word", "port", "caption_1 is nearly empty: 'port .'"),
    ("a caption of emoji", "\U0001f6a2 \U0001f30a", "caption_1 is nearly empty: '\U0001f6a2 \U0001f30a .'"),
    ("a list of numbers in one cell", "[1, 2]", "caption_1 is a list that cannot be split: '[1, 2]'"),
    ("a map in one cell", "{'raw': 'A port .'}", "caption_1 is a list that cannot be split: \"{'raw'"),
    ("a caption of control characters", "\x01\x02\x1b", "caption_1 is nearly empty: ''"),
    ("a caption of 10,000 words", "port " * 10_000, "caption_1 has 10001 words"),
    ("a caption of 201 words", "port " * 200, "caption_1 has 201 words"),
    ("a caption of 5000 letters without a space", "\u6e2f" * 5000, "caption_1 has 5002 characters"),
    ("a caption with the model's mark for an image", "A port <image> .", "caption_1 holds <image>"),
    ("a caption with the model's mark for an end", "A port <eos> .", "caption_1 holds <eos>"),
    ("a caption with the model's mark for a location", "A port <loc0123> .", "caption_1 holds <loc0123>"),
]
FAMILY = "A port of \U0001f468\u200d\U0001f469 .", "A port of \U0001f468\U0001f469 ."
REPAIRED_CAPTIONS: list[tuple[str, str, str, str]] = [
    ("a list of captions in one cell, as Python writes it", "['A port .', 'A lake .']", LIST_SPLIT, "A port ."),
    ("a list of captions in one cell, as NumPy writes it", "['A port .'\n 'A lake .']", LIST_SPLIT, "A port ."),
    ("a list of captions in one cell, as JSON", '[""A port ."", ""A lake .""]', LIST_SPLIT, "A port ."),
    ("NUL in a caption", "A\0 port .", "control characters removed", "A port ."),
    ("a command for the terminal in a caption", "A \x1bport .", "control characters removed", "A port ."),
    ("direction marks", "A \u202eport\u202c .", "marks of direction removed", "A port ."),
    ("zero-width spaces", "A \u200bport .", "zero-width characters removed", "A port ."),
    ("emoji with zero-width joiners", FAMILY[0], "zero-width characters removed", FAMILY[1]),
    ("no-break spaces", "A\u00a0port .", "unusual spaces made plain", "A port ."),
    ("a line break in quotes", "A\nport .", "unusual spaces made plain", "A port ."),
    ("curly quotes", "A \u201cport\u201d .", "curly quotes straightened", 'A "port" .'),
    ("letters with separate accents", "A cafe\u0301 .", "unicode composed", "A caf\u00e9 ."),
    ("two spaces", "A  port .", "repeated spaces collapsed", "A port ."),
    ("no period", "A port", "final period added", "A port ."),
    ("a period without a space", "A port.", "final period set apart", "A port ."),
    ("two periods", "A port . .", "repeated period collapsed", "A port ."),
]
CHINESE = "\u6e2f\u53e3 \u6709 \u8239 ."
THAI = "\u0e17\u0e48\u0e32\u0e40\u0e23\u0e37\u0e2d ."
ARABIC = "\u0645\u064a\u0646\u0627\u0621 \u0643\u0628\u064a\u0631 ."
RUSSIAN = "\u0411\u043e\u043b\u044c\u0448\u043e\u0439 \u043f\u043e\u0440\u0442 ."
GOOD_CAPTIONS: list[tuple[str, str]] = [
    ("a caption in Chinese: an ideograph counts as a word, PTB splits at spaces alone", CHINESE),
    ("a caption in Thai, which has no spaces: PTB makes one token of it", THAI),
    ("a caption in Arabic, in the order of its letters", ARABIC),
    ("a caption in Russian", RUSSIAN),
    ("emoji among words: bytes to the model; PTB removes them, so they are not scored", "A port \U0001f6a2 ."),
    ("a caption that is a formula, which nothing here runs", "=cmd|' /C calc'!A0 ."),
    ("a caption with HTML", "A <b>big</b> port ."),
    ("a caption with commands for a shell", "A port $(reboot) `id` ; rm -rf / ."),
    ("a caption of 200 words", "port " * 199 + "."),
]
GOOD_TABLES: list[tuple[str, Edit]] = [
    ("a byte-order mark", lambda content: b"\xef\xbb\xbf" + content),
    ("line ends of Windows", replace("\n", "\r\n")),
    ("line ends of an old Macintosh", replace("\n", "\r")),
    ("empty lines", replace("\n", "\n\n")),
    ("quotes around each field", quote_all),
    ("additional columns", replace("\n", ",more\n")),
    ("a name in capitals, unlike the file's", with_name("A.JPG")),
    ("spaces around source and split", replace("UCM,train", " UCM , train ")),
    ("the same caption five times", with_captions(*["A port ."] * 5)),
]
BOTH, SAME_IMAGE = ("a", "b"), "same image as line 2"
ONE_CAPTION = with_captions("A port .", *[""] * 4)
TABLES = [
    *(Case(name, REFUSED, message, edit) for name, edit, message in BAD_TABLES),
    *(Case(name, SET_ASIDE, message, with_name(new), ("b",)) for name, new, message in BAD_NAMES),
    *(Case(name, SET_ASIDE, message, with_caption(new), BOTH) for name, new, message in BAD_CAPTIONS),
    Case("no caption", SET_ASIDE, "no usable caption", with_captions(*[""] * 5), ("b",)),
    Case("one caption of five", AS_IT_IS, "", ONE_CAPTION, BOTH),
    Case("the same name twice", SET_ASIDE, SAME_IMAGE, replace("b.jpg", "a.jpg"), ("a",)),
    *(Case(name, REPAIRED, rule, with_caption(new), clean) for name, new, rule, clean in REPAIRED_CAPTIONS),
    *(Case(name, AS_IT_IS, "", with_caption(new), new) for name, new in GOOD_CAPTIONS),
    *(Case(name, AS_IT_IS, "", edit, BOTH) for name, edit in GOOD_TABLES),
]
FOLDERS = [  # `make` changes the folder
    Case("no captions.csv", REFUSED, "no captions that are read; it holds 2 images", partial(remove, "captions.csv")),
    Case("a folder called captions.csv", REFUSED, "it holds 2 images", partial(replace_by_folder, "captions.csv")),
    Case("a row without its image", SET_ASIDE, "no such file", partial(remove, "a.jpg"), ("b",)),
    Case("a folder for an image", SET_ASIDE, "no such file", partial(replace_by_folder, "a.jpg"), ("b",)),
    Case("an image without a row", SET_ASIDE, "no row", partial(add_image, "c.jpg", row=False), BOTH),
    Case(
        "two images whose names differ in the ending",
        AS_IT_IS,
        "",
        partial(add_image, "a.png"),
        ("a.jpg", "b", "a.png"),
    ),
    Case("two images whose names differ in case", AS_IT_IS, "", partial(add_image, "A.jpg"), (*BOTH, "A")),
]
