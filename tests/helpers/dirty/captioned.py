"""Predictions, which the pipeline writes: `make` is the content of a file whose test images are `a` and `b`."""

import json

from tests.helpers.dirty import AS_IT_IS, REFUSED, Case

IDS = ["a", "b"]


def line(id_: str, **changes: object) -> bytes:
    record = {"id": id_, "caption": "A port .", "tokens": 4, "ended": True} | changes
    return json.dumps(record).encode() + b"\n"


A, B = line("a"), line("b")
CASES = [
    Case("an incomplete file", REFUSED, ":2: ", A + B[:-20]),
    Case("a repeated image", REFUSED, "'a'", A + B + A),
    Case("a missing image", REFUSED, "'b'", A),
    Case("an image of another split", REFUSED, "'c'", A + B + line("c")),
    Case("a number for a caption", REFUSED, ":2: ", A + line("b", caption=7)),
    Case("a pickle", REFUSED, ": ", b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."),
    Case("lines in another order", AS_IT_IS, "", B + A),
    Case("an empty caption, which is scored", AS_IT_IS, "", line("a", caption="") + B),
]
