"""captions.csv: `make` changes a good folder's table, in bytes, or the folder; what is left is told by `kept`.

The good folder has `a.jpg` and `b.jpg`, and one row a picture. `kept`: ids that come out, by default both, `b` alone
where `a` is set aside.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.helpers.dirty import AS_IT_IS, REFUSED, REPAIRED, SET_ASIDE, Case
from tests.helpers.dirty.images import saved

CAPTIONS = ["A port .", "Boats in a port .", "There is a port .", "It is a port .", "A port with boats ."]
HEADER = "source,split,image,caption_1,caption_2,caption_3,caption_4,caption_5"
ROWS = [f"UCM,train,{name},{','.join(CAPTIONS)}" for name in ("a.jpg", "b.jpg")]
GOOD = "\n".join([HEADER, *ROWS, ""]).encode()
NAMELESS = "its name is no plain file name"
Edit = Callable[[bytes], bytes]


def good_folder(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_bytes(saved("JPEG"))
    (folder / "captions.csv").write_bytes(GOOD)


def text(old: str, new: str) -> Edit:
    return lambda content: content.replace(old.encode(), new.encode())


def caption(new: str) -> Edit:
    """`new` as the first caption of `a.jpg`."""
    return lambda content: content.replace(b"a.jpg,A port .", b'a.jpg,"' + new.encode() + b'"')


def captions(*new: str) -> Edit:
    return lambda content: content.replace(ROWS[0].encode(), ("UCM,train,a.jpg," + ",".join(new)).encode())


def name(new: str) -> Edit:
    return lambda content: content.replace(b",a.jpg,", f',"{new}",'.encode())


def folder_for_table(folder: Path) -> None:
    (folder / "captions.csv").unlink()
    (folder / "captions.csv").mkdir()


def folder_for_picture(folder: Path) -> None:
    (folder / "a.jpg").unlink()
    (folder / "a.jpg").mkdir()


def one_more(file: str, folder: Path, row: bool = True) -> None:
    (folder / file).write_bytes(saved("PNG" if file.endswith("png") else "JPEG"))
    if row:
        with (folder / "captions.csv").open("a") as table:
            table.write(ROWS[0].replace("a.jpg", file) + "\n")


WHOLE: list[tuple[str, Edit, str]] = [
    ("an empty file", lambda _: b"", ":1: no column source, split, image, caption_1"),
    ("a header and nothing else", lambda _: HEADER.encode(), ":2: no rows; every image needs one"),
    ("a missing column", text(",caption_3", ",third"), ":1: no column caption_3; the header must hold all of"),
    ("a column twice", text("caption_2", "caption_1"), ":1: column caption_1 stands there twice; leave one"),
    ("no header", text(HEADER + "\n", ""), ":1: no column source, split, image"),
    ("semicolons for commas", text(",", ";"), ":1: semicolons separate its columns; save it with commas"),
    ("tabs for commas", text(",", "\t"), ":1: tabs separate its columns; save it with commas"),
    ("UTF-16", lambda content: content.decode().encode("utf-16"), ":1: this is UTF-16; save it as CSV in UTF-8"),
    ("Windows-1252", lambda content: content.replace(b"b.jpg,A port", b"b.jpg,A caf\xe9"),
     ":3: byte 0xe9 is no UTF-8, but may be Windows-1252; save it as CSV in UTF-8"),
    ("an Excel workbook", lambda _: b"PK\x03\x04" + bytes(100), ":1: this is an Excel workbook or a zip archive"),
    ("a quote that is left open", lambda content: content.replace(b"b.jpg,A port", b'b.jpg,"A port'),
     ":3: the row that begins here cannot be read (unexpected end of data); look for a quote that is not closed"),
    ("words behind a closing quote", lambda content: content.replace(b"a.jpg,A port", b'a.jpg,"A" port'),
     ":2: the row that begins here cannot be read (',' expected after '\"')"),
    ("a field of 200,000 characters", caption("x" * 200_000),
     ":2: the row that begins here cannot be read (field larger than field limit"),
    ("a comma that is not quoted", text("a.jpg,A port", "a.jpg,A big, port"),
     ":2: 'a.jpg' has too many fields; quote fields that hold commas"),
    ("a row cut short", text("It is a port .,A port with boats .\n", "It is a port .\n"),
     ":2: 'a.jpg' has too few fields; quote fields that hold commas"),
    ("a split of another name", text("UCM,train,b", "UCM,dev,b"),
     ":3: split 'dev'; use train, val, test or leave it empty"),
    ("no source", text("UCM,train,b", " ,train,b"), ":3: 'b.jpg' has no source; name the data set it is from"),
    ("a source with a command for the terminal", text("UCM,train,b", "U\x1b[2JM,train,b"),
     ":3: source 'U\\x1b[2JM' holds a control character; remove it"),
]  # fmt: skip
NAMES: list[tuple[str, str, str]] = [
    ("a name that climbs out of the folder", "../a.jpg", NAMELESS),
    ("an absolute name", "/etc/passwd", NAMELESS),
    ("a name with a folder", "resized/a.jpg", NAMELESS),
    ("a dot for a name", "..", NAMELESS),
    ("no name", "", NAMELESS),
    ("a Windows path", "C:\\pictures\\a.jpg", "no such file"),
    ("an address on the web", "https://example.org/a.jpg", NAMELESS),
    ("a name with a space", "a b.jpg", "its name holds a space; ids are kept one a line"),
    ("a name with a line break", "a\n.jpg", "its name holds a space; ids are kept one a line"),
    ("a name with NUL", "a\0.jpg", "its name holds a control character"),
    ("a name with a command for the terminal", "a\x1b[2J.jpg", "its name holds a control character"),
    ("a name that reads backwards", "a\u202egpj.jpg", "its name holds a control character"),
    ("a name of 300 letters", "a" * 296 + ".jpg", "its name is longer than 255 bytes"),
    ("a name of another case than the file's", "A.JPG", "no such file"),
    ("a name that is a formula", "=cmd()", "no such file"),
]
CAPTION_ASIDE: list[tuple[str, str, str]] = [
    ("an empty caption, the image has four", "", "caption_1 is nearly empty: ''"),
    ("a caption of punctuation", "?! ... --- ;", "caption_1 is nearly empty: '?! . --- ; .'"),
    ("a caption of figures", "12 34 56 .", "caption_1 is nearly empty: '12 34 56 .'"),
    ("a caption of one word", "port", "caption_1 is nearly empty: 'port .'"),
    ("a caption of emoji", "\U0001f6a2 \U0001f30a", "caption_1 is nearly empty: '\U0001f6a2 \U0001f30a .'"),
    ("a caption of control characters", "\x01\x02\x1b", "caption_1 is nearly empty: ''"),
    ("a caption of 10,000 words", "port " * 10_000, "caption_1 has 10001 words; at most 200 are taken"),
    ("a caption of 201 words", "port " * 200, "caption_1 has 201 words; at most 200 are taken"),
    (
        "a caption of 5000 letters and no space",
        "\u6e2f" * 5000,
        "caption_1 has 5002 characters; at most 2000 are taken",
    ),
    ("a caption with a mark of the model", "A port <image> .", "caption_1 holds <image>, a mark of the model's own"),
    ("a caption that ends the model's", "A port <eos> .", "caption_1 holds <eos>, a mark of the model's own"),
    ("a caption with a place of the model", "A port <loc0123> .", "caption_1 holds <loc0123>, a mark of the model's"),
]
CLEANED: list[tuple[str, str, str, str]] = [
    ("NUL in a caption", "A\0 port .", "control characters removed", "A port ."),
    ("a command for the terminal in a caption", "A \x1bport .", "control characters removed", "A port ."),
    ("marks of direction", "A \u202eport\u202c .", "marks of direction removed", "A port ."),
    ("zero-width spaces", "A \u200bport .", "zero-width characters removed", "A port ."),
    ("a family of emoji, which zero-width joiners hold together", "A port of \U0001f468\u200d\U0001f469 .",
     "zero-width characters removed", "A port of \U0001f468\U0001f469 ."),
    ("no-break spaces", "A\u00a0port .", "unusual spaces made plain", "A port ."),
    ("a line break in quotes", "A\nport .", "unusual spaces made plain", "A port ."),
    ("curly quotes", "A \u201cport\u201d .", "curly quotes straightened", 'A "port" .'),
    ("letters with their accents apart", "A cafe\u0301 .", "unicode composed", "A caf\u00e9 ."),
    ("two spaces", "A  port .", "repeated spaces collapsed", "A port ."),
    ("no period", "A port", "final period added", "A port ."),
    ("a period at the word", "A port.", "final period set apart", "A port ."),
    ("two periods", "A port . .", "repeated period collapsed", "A port ."),
]  # fmt: skip
KEPT: list[tuple[str, str]] = [
    ("a caption in Chinese: each ideograph counts as a word here; PTB makes one token of what no space parts",
     "\u6e2f\u53e3 \u6709 \u8239 ."),
    ("a caption in Thai, which sets no spaces: PTB makes one token of it",
     "\u0e17\u0e48\u0e32\u0e40\u0e23\u0e37\u0e2d ."),
    ("a caption in Arabic, kept in the order of its letters",
     "\u0645\u064a\u0646\u0627\u0621 \u0643\u0628\u064a\u0631 ."),
    ("a caption in Russian", "\u0411\u043e\u043b\u044c\u0448\u043e\u0439 \u043f\u043e\u0440\u0442 ."),
    ("emoji among words: byte pieces to the model; PTB leaves them out, so they are not scored", "A port \U0001f6a2 ."),
    ("a caption that is a formula: text, run by nothing here", "=cmd|' /C calc'!A0 ."),
    ("a caption with HTML", "A <b>big</b> port ."),
    ("a caption with commands for a shell", "A port $(reboot) `id` ; rm -rf / ."),
    ("a caption of 200 words", "port " * 199 + "."),
]  # fmt: skip
SHAPES: list[tuple[str, Edit, tuple[str, ...]]] = [
    ("a byte-order mark", lambda content: b"\xef\xbb\xbf" + content, ("a", "b")),
    ("lines that end as in Windows", text("\n", "\r\n"), ("a", "b")),
    ("lines that end as on an old Macintosh", text("\n", "\r"), ("a", "b")),
    ("empty lines", text("\n", "\n\n"), ("a", "b")),
    ("every field in quotes",
     lambda content: b"\n".join(b'"' + line.replace(b",", b'","') + b'"' for line in content.splitlines()), ("a", "b")),
    ("more columns than are read", lambda content: content.replace(b"\n", b",more\n"), ("a", "b")),
    ("spaces around source and split", text("UCM,train", " UCM , train "), ("a", "b")),
    ("five times the same caption", captions(*["A port ."] * 5), ("a", "b")),
]  # fmt: skip
TABLES = [
    *(Case(what, REFUSED, told, edit) for what, edit, told in WHOLE),
    *(Case(what, SET_ASIDE, told, name(new), ("b",)) for what, new, told in NAMES),
    *(Case(what, SET_ASIDE, told, caption(new), ("a", "b")) for what, new, told in CAPTION_ASIDE),
    Case("no caption at all", SET_ASIDE, "no usable caption; every image needs one", captions(*[""] * 5), ("b",)),
    Case("one caption of five", SET_ASIDE, "caption_5 is nearly empty: ''", captions("A port .", *[""] * 4),
         ("a", "b")),
    Case("the same name twice", SET_ASIDE, "same name as line 2, endings left out; rename one",
         text("b.jpg", "a.jpg"), ("a",)),
    *(Case(what, REPAIRED, rule, caption(new), clean) for what, new, rule, clean in CLEANED),
    *(Case(what, AS_IT_IS, "", caption(new), new) for what, new in KEPT),
    *(Case(what, AS_IT_IS, "", edit, kept) for what, edit, kept in SHAPES),
]  # fmt: skip
FOLDERS = [  # `make` changes the folder
    Case("no captions.csv", REFUSED, "captions.csv: no such file or directory; put RISC's captions.csv there",
         lambda folder: (folder / "captions.csv").unlink()),
    Case("a folder called captions.csv", REFUSED, "captions.csv: is a directory; put RISC's captions.csv there",
         folder_for_table),
    Case("a row whose image is missing", SET_ASIDE, "no such file", lambda folder: (folder / "a.jpg").unlink(), ("b",)),
    Case("a row whose image is a folder", SET_ASIDE, "no such file", folder_for_picture, ("b",)),
    Case("an image that no row names", SET_ASIDE, "no row of captions.csv names it; add one with its captions",
         partial(one_more, "c.jpg", row=False), ("a", "b")),
    Case("two images of one name but for the ending", SET_ASIDE, "same name as line 2, endings left out; rename one",
         partial(one_more, "a.png"), ("a", "b")),
    Case("two images of one name but for the case", AS_IT_IS, "", partial(one_more, "A.jpg"), ("a", "b", "A")),
]  # fmt: skip
