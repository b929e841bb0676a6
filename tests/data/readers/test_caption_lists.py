"""A list that a program wrote into one cell is split, or refused by name; it is never a caption."""

import csv
import io
import json

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captioning.data.readers.caption_lists import is_list_as_text, split_lists

HOSTILE = (
    "'a b' " * 30_000 + "c",
    '"a' * 100_000,
    "' \" " * 50_000,
    "[ " * 50_000,
    " " * 100_000,
    '"' + "\\" * 100_000,
)
TEXTS = st.lists(st.text(), min_size=1, max_size=6)


@given(TEXTS)
@settings(deadline=None)
def test_what_python_json_and_numpy_write_is_split(texts: list[str]) -> None:
    writers = (str, repr, json.dumps, lambda parts: json.dumps(parts, ensure_ascii=False, indent=1))
    written = [write(texts) for write in writers]
    written += [str(tuple(texts)), str(np.array(texts, dtype=object)), repr(np.array(texts, dtype=object))]
    assert [split_lists([text]) for text in written] == [texts] * len(written)


def test_a_column_that_pandas_wrote_to_csv_is_split() -> None:
    lists = [np.array(["It's a port .", 'A "port" .'], dtype=object), ["A port .", "A lake ."], ["A road ."]]
    table = io.StringIO(pandas.DataFrame({"captions": lists}).to_csv(index=False), newline="")
    assert [split_lists([row["captions"]]) for row in csv.DictReader(table)] == [list(texts) for texts in lists]


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "['a .', 3]",
        "[['a .'], ['b .']]",
        "{'raw': 'a .'}",
        "['a .' ... 'z .']",
        "['a .', 'b",
        "[np.str_('a .'), np.str_('b",
        "array(1)",
        "[a b]",
        "list(['a .', 'b .'])",
        "('a .', b .)",
        "['a .', 'b .'].",
        "'a .', 'b .'",
        "'a .' 'b .'",
        '"a .","b ."',
        "'a .'\n 'b .'",
        'c("a .", "b .")',
        "captions=['a .']",
        "captions: 'a .', 'b .'",
        "<ArrowStringArray> ['a .', 'b .', ...] Length: 5",
        "&#91;'a .'&#93;",
        "[&#39;a .&#39;, &quot;b .&quot;",
        "\"It's a port .\", 'It\\'s a lake .'",
        "'port', 'lake'",
        '"[\\"a .\\", 3]"',
        '"{\\"raw\\": \\"a .\\"}"',
        "The captions are [\\'a .\\'",
    ],
)
def test_a_list_that_cannot_be_split_is_recognised(text: str) -> None:
    assert split_lists([text]) == [text]
    assert is_list_as_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "A port .",
        "",
        "'a' is here .",
        "(left) a port .",
        "a ('big') port .",
        "a [big] port .",
        "[A port] is full .",
        'the word "stop" is seen',
        '"stop" is written on the road .',
        'the words "stop", "go" and "turn" are seen .',
        '"A port with ships ."',
        "the planes' wings, the boats' sails",
        "there's a road by the owners' \"stop\" sign",
        "the planes' wings, the boats' 'big' sails",
        "it's the farmers' , 'n the planes' field",
        "a big port and\r\nmany ships .",
    ],
)
def test_a_caption_stays_as_it_is(text: str) -> None:
    assert split_lists([text]) == [text] and not is_list_as_text(text)


@pytest.mark.parametrize(
    "text",
    ["['A port .', None, 'A lake .']", "[nan 'A port .' 'A lake .']", "[np.str_('A port .'), np.str_(\"A lake .\")]"],
)
def test_nulls_and_numpys_types_are_no_part_of_the_captions(text: str) -> None:
    assert split_lists([text]) == ["A port .", "A lake ."]


def test_json_encoded_twice_is_split() -> None:
    twice = json.dumps(json.dumps(["A port .", 'A "big" lake .']))
    assert split_lists([twice, json.dumps(twice)]) == ["A port .", 'A "big" lake .'] * 2


def test_lines_of_two_words_are_captions() -> None:
    assert split_lists(["A port .\nA lake .\r\n\nA road .\n"]) == ["A port .", "A lake .", "A road ."]
    assert split_lists(["a port\na lake"]) == ["a port", "a lake"]
    assert split_lists(["A port\nhere"]) == ["A port\nhere"]


def test_nulls_in_json_are_no_captions() -> None:
    assert split_lists(['["A port .", null]', "A lake ."]) == ["A port .", "A lake ."]


def test_a_hostile_cell_takes_no_time() -> None:
    for text in ("['a'" + " " * 100_000, "['" + "a' '" * 30_000, "[" * 100_000, "['a'" + "," * 100_000, *HOSTILE):
        assert split_lists([text]) == [text]
