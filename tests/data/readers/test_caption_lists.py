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
    ],
)
def test_a_list_that_cannot_be_split_is_recognised(text: str) -> None:
    assert split_lists([text]) == [text]
    assert is_list_as_text(text)


@pytest.mark.parametrize(
    "text",
    ["A port .", "", "'a' is here .", "(left) a port .", "a ('big') port .", "a [big] port .", "[A port] is full ."],
)
def test_a_caption_stays_as_it_is(text: str) -> None:
    assert split_lists([text]) == [text] and not is_list_as_text(text)


@pytest.mark.parametrize(
    "text",
    ["['A port .', None, 'A lake .']", "[nan 'A port .' 'A lake .']", "[np.str_('A port .'), np.str_(\"A lake .\")]"],
)
def test_nulls_and_numpys_types_are_no_part_of_the_captions(text: str) -> None:
    assert split_lists([text]) == ["A port .", "A lake ."]


def test_nulls_in_json_are_no_captions() -> None:
    assert split_lists(['["A port .", null]', "A lake ."]) == ["A port .", "A lake ."]


def test_a_hostile_cell_takes_no_time() -> None:
    for text in ("['a'" + " " * 100_000, "['" + "a' '" * 30_000, "[" * 100_000, "['a'" + "," * 100_000):
        assert split_lists([text]) == [text]
