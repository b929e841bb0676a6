"""Predictions: `make` gives the bytes of a file whose test images are `a` and `b`."""

import json

from tests.helpers.dirty import AS_IT_IS, REFUSED, Case

IDS = ["a", "b"]
AGAIN = "; run its generate stage again"


def line(id_: str, **changed: object) -> bytes:
    record = {"id": id_, "caption": "A port .", "tokens": 4, "ended": True} | changed
    return json.dumps({key: value for key, value in record.items() if value is not None}).encode() + b"\n"


A, B = line("a"), line("b")
GOOD = A + B
NOT_JSON = "is not JSON with id, caption, tokens, ended" + AGAIN
WRONG: list[tuple[str, bytes, str]] = [
    ("an empty file", b"", f": not one prediction for each test image ('a'){AGAIN}"),
    ("a file cut short", A + B[:-20], ":2: "),
    ("an image twice", A + B + A, f"image ('a'){AGAIN}"),
    ("an image too few", A, f"image ('b'){AGAIN}"),
    ("an image of another split", A + B + line("c"), f"image ('c'){AGAIN}"),
    ("UTF-16", GOOD.decode().encode("utf-16"), ": 'utf-8' codec can't decode byte 0xff"),
    ("a list for a map", A + b'["b", "A port ."]\n', f':2: \'["b", "A port ."]\' {NOT_JSON}'),
    ("a missing key", A + line("b", ended=None), NOT_JSON),
    ("a number for a caption", A + line("b", caption=7), NOT_JSON),
    ("a length of 5000 digits", A + B.replace(b"4", b"4" * 5000), NOT_JSON),
    ("100,000 brackets", A + b"[" * 100_000, NOT_JSON),
    ("an id with a command for the terminal", A + B + line("c\x1b[2J"), "image ('c\\x1b[2J')"),
]
FINE: list[tuple[str, bytes]] = [
    ("lines that end as in Windows", GOOD.replace(b"\n", b"\r\n")),
    ("empty lines", GOOD.replace(b"\n", b"\n\n")),
    ("another order", B + A),
    ("more keys than are read", line("a", score=0.5) + B),
    ("a caption of a line separator", line("a", caption="A\u2028port .") + B),
    ("an empty caption: scored as one", line("a", caption="") + B),
]
CASES = [
    *(Case(what, REFUSED, told, content) for what, content, told in WRONG),
    *(Case(what, AS_IT_IS, "", content) for what, content in FINE),
]
