"""Statistics by hand on a few captions."""

import pytest

from captioning.data.statistics import (
    count_occurrences,
    count_words,
    describe,
    histogram,
    share_by_distinct_captions,
    share_near_duplicates,
    summarise,
)

CAPTIONS = {
    "a": ["the red port", "the red port", "a big lake"],
    "b": ["some planes parked near it"],
    "c": ["a", "a b", "a b c d e"],
}


def test_lengths_with_and_without_stop_words() -> None:
    assert count_words(["the red port", "", "a the"], {"the", "a"}) == [2, 0, 0]
    assert count_words(["the red port", ""]) == [3, 0]


def test_summary_takes_the_smallest_of_several_modes() -> None:
    assert summarise([5, 3, 3, 5, 9]) == {"mean": 5.0, "median": 5.0, "mode": 3, "minimum": 3, "maximum": 9}


def test_histogram_is_long_and_sorted() -> None:
    assert histogram({"all": [2, 1, 2]}) == [
        {"kind": "all", "words": 1, "captions": 1},
        {"kind": "all", "words": 2, "captions": 2},
    ]


def test_word_counts() -> None:
    assert count_occurrences({"a": ["b a", "a"], "c": ["the a"]}, {"the"}) == {"a": 3, "b": 1}


def test_distinct_captions() -> None:
    assert share_by_distinct_captions(CAPTIONS) == {"1": 0.3333, "2": 0.3333, "3": 0.3333}


@pytest.mark.parametrize(
    ("captions", "share"),
    [
        (["a b c d", "d c b a"], 1.0),
        (["a b c d", "a b c d e"], 1.0),  # 4 of 5 words: exactly the bound
        (["a b c", "a b c d"], 0.0),
        (["a b", "a b", "x y"], 1 / 3),
        (["only"], 0.0),
    ],
)
def test_near_duplicates(captions: list[str], share: float) -> None:
    assert share_near_duplicates({"i": captions}) == pytest.approx(share)


def test_describe_counts_by_source() -> None:
    found = describe(CAPTIONS, {"a": "X", "b": "Y", "c": "X"}, {"the", "a"})
    assert found["images"] == 3 and found["captions"] == 7
    assert found["distinct_captions"] == {"X": {"2": 0.5, "3": 0.5}, "Y": {"1": 1.0}}
    expected = {"mean": 2.33, "median": 2.0, "mode": 0, "minimum": 0, "maximum": 5}
    assert found["first_caption_words_without_stop_words"] == expected
