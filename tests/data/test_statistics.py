"""Statistics of a few captions, by hand."""

import pytest

from captioning.data import statistics

CAPTIONS = {
    "a": ["the red port", "the red port", "a big lake"],
    "b": ["some planes parked near it"],
    "c": ["a", "a b", "a b c d e"],
}


def test_words_are_counted_with_and_without_stop_words() -> None:
    assert statistics.count_words(["the red port", "", "a the"], {"the", "a"}) == [2, 0, 0]
    assert statistics.count_occurrences({"a": ["b a", "a"], "c": ["the a"]}, {"the"}) == {"a": 3, "b": 1}


def test_lengths_are_summarised_and_listed() -> None:
    summary = {"mean": 5.0, "median": 5.0, "mode": 3, "minimum": 3, "maximum": 9}
    assert statistics.summarise([5, 3, 3, 5, 9]).model_dump() == summary, "the mode is the smallest of several"
    rows = [{"kind": "all", "words": 1, "captions": 1}, {"kind": "all", "words": 2, "captions": 2}]
    assert statistics.histogram({"all": [2, 1, 2]}) == rows


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
def test_near_duplicates_share_four_of_five_words(captions: list[str], share: float) -> None:
    assert statistics.share_near_duplicates({"i": captions}) == pytest.approx(share)


def test_statistics_are_described_by_source() -> None:
    described = statistics.describe(CAPTIONS, {"a": "X", "b": "Y", "c": "X"}, {"the", "a"})
    assert described.images == 3 and described.captions == 7
    assert described.distinct_captions == {"X": {"2": 0.5, "3": 0.5}, "Y": {"1": 1.0}}
    expected = {"mean": 2.33, "median": 2.0, "mode": 0, "minimum": 0, "maximum": 5}
    assert described.first_caption_words_without_stop_words.model_dump() == expected
