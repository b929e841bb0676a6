"""Near-equal images are found exactly and stay together; ratios hold within a source; leakage is counted by hand."""

import io
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from captioning.base.errors import UserError
from captioning.data.outputs import Leakage, LeakedShares
from captioning.data.readers.drawn import draw_world
from captioning.data.splits import SplitImages, find_near_pairs, group_near_equal, perceptual_hash

RATIOS = {"train": 0.6, "validation": 0.2, "test": 0.2}
Column = Sequence[Any]


def split_images(ids: Column, sources: Column = (), published: Column = (), hashes: Column = (), seed: int = 1) -> Any:
    return SplitImages(ids, sources or "A" * len(ids), published, hashes, 0, RATIOS, seed)


def random_hashes(seed: int, number: int = 60) -> np.ndarray:
    """Random hashes, and copies of them with up to six bits flipped."""
    rng = random.Random(seed)
    hashes = [rng.getrandbits(64) for _ in range(number)]
    hashes += [rng.choice(hashes) ^ sum(1 << bit for bit in rng.sample(range(64), rng.randint(0, 6))) for _ in hashes]
    return np.array(hashes, dtype=np.uint64)


@pytest.mark.parametrize("distance", [0, 1, 2, 5, 16])
def test_near_pairs_join_what_brute_force_joins(distance: int) -> None:
    hashes = random_hashes(distance)
    pairs = combinations(range(len(hashes)), 2)
    links = {(low, high) for low, high in pairs if int(hashes[low] ^ hashes[high]).bit_count() <= distance}
    assert {tuple(sorted(pair)) for pair in find_near_pairs(hashes, distance)} <= links
    groups = list(range(len(hashes)))
    for _ in hashes:
        for first, second in links:
            groups[first] = groups[second] = min(groups[first], groups[second])
    assert group_near_equal(hashes, distance) == groups
    assert len(set(groups)) < len(hashes)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(1, 4)), min_size=40, max_size=60), st.integers(0, 9))
def test_groups_stay_together_and_ratios_hold(sizes: list[tuple[str, int]], seed: int) -> None:
    sources = [source for source, size in sizes for _ in range(size)]
    starts = np.cumsum([0, *(size for _, size in sizes)])
    groups = [int(start) for start, (_, size) in zip(starts, sizes, strict=False) for _ in range(size)]
    ids = [f"i{index}" for index in range(len(groups))]
    split = split_images(ids, sources, seed=seed).split("ratio", groups)
    split_of = {id_: name for name, members in split.items() for id_ in members}
    assert sorted(split_of) == sorted(ids) and sum(map(len, split.values())) == len(ids)
    assert all(split_of[id_] == split_of[ids[group]] for id_, group in zip(ids, groups, strict=True))
    totals, counts = Counter(sources), Counter((sources[int(id_[1:])], name) for id_, name in split_of.items())
    assert all(abs(counts[source, name] - totals[source] * RATIOS[name]) <= 4 for source in totals for name in RATIOS)


def test_ratios_are_exact_without_groups_and_seeded() -> None:
    ids, sources = [f"i{index}" for index in range(100)], ["A"] * 80 + ["B"] * 20
    first, again, other = (split_images(ids, sources, seed=seed).split("ratio", range(100)) for seed in (1, 1, 2))
    assert {name: len(members) for name, members in first.items()} == {"train": 60, "validation": 20, "test": 20}
    assert first == again != other
    assert first["train"] == sorted(first["train"])


def test_a_group_in_several_published_splits_moves_towards_test() -> None:
    images = split_images("abcdef", published=["train", "val", "test", "train", "train", "val"])
    split = images.split("own", [0, 1, 2, 2, 4, 4])
    assert split == {"train": ["a"], "validation": ["b", "e", "f"], "test": ["c", "d"]}


TWO_SOURCES = split_images("abcdefgh", "NNNNRRRR", ["train", "val", "test", "train", "train", "val", "val", "test"])


def test_held_out_validation_images_choose_nothing_and_are_scored() -> None:
    """Near-equal images go to the later of train, validation, held out and test; the scored parts stay as published."""
    images = replace(TWO_SOURCES, held_out=["R"], hashes=range(8))
    apart = images.split("own", range(8))
    assert apart == {"train": ["a", "d", "e"], "validation": ["b"], "test": ["c", "h"], "held_out": ["f", "g"]}
    joined = images.split("own", [0, 1, 2, 2, 5, 5, 7, 7])  # d near c, e near f, g near h
    assert joined == {"train": ["a"], "validation": ["b"], "test": ["c", "d", "g", "h"], "held_out": ["e", "f"]}
    parts = {"test:N": ["c"], "test:R": ["h"], "validation:R": ["f", "g"]}
    assert images.find_scored_parts(apart, "own") == images.find_scored_parts(joined, "own") == parts
    statistics = images.describe("own", joined, range(8), dict.fromkeys("abcdefgh", ("",)))
    assert statistics.images == {"train": 1, "validation": 1, "test": 4, "held_out": 2}


def test_without_held_out_sources_each_source_of_the_test_split_is_a_part() -> None:
    split = TWO_SOURCES.split("own", range(8))
    assert split == {"train": ["a", "d", "e"], "validation": ["b", "f", "g"], "test": ["c", "h"]}
    assert TWO_SOURCES.find_scored_parts(split, "own") == {"test:N": ["c"], "test:R": ["h"]}
    drawn = {"train": list("aceg"), "validation": ["h"], "test": ["b", "d", "f"]}
    assert TWO_SOURCES.find_scored_parts(drawn, "ratio") == {"test:N": ["b", "d"], "test:R": ["f"]}


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        (["S"], r"split\.held_out: 'S' has no validation images; choose from 'N, R'"),
        (["N", "R"], "split: no image in validation; take more images, or change split.ratios, .* or held_out"),
    ],
)
def test_a_source_that_cannot_be_held_out_is_one_line(held_out: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(TWO_SOURCES, held_out=held_out).split("own", range(8))


def test_a_missing_published_split_and_an_empty_split_are_reported() -> None:
    with pytest.raises(UserError, match=r"'b' and 0 more images have no published split; use split\.method: ratio"):
        split_images("ab", published=["train", ""]).split("own", [0, 1])
    with pytest.raises(UserError, match="no image in validation, test"):
        split_images("ab", "AA").split("ratio", [0, 0])


def test_leakage_by_hand() -> None:
    captions = {"a": ["x", "y"], "b": ["z"], "v": ["x"], "c": ["x", "new"], "d": ["new", "z"], "e": ["other"]}
    images = split_images("abvcde", "AAAAAA", ["train", "train", "val", "test", "test", "train"], [1, 2, 9, 1, 3, 4])
    leakages = images.measure_leakages([0, 1, 2, 0, 1, 3], captions)
    apart = LeakedShares(captions=0.5, equal_images=0.5, near_images=1.0)
    whole = LeakedShares(captions=0.0, equal_images=0.0, near_images=0.0)
    assert leakages["own"] == Leakage(images_apart=apart, groups_whole=whole)
    assert images.measure_leakages([0] * 6, captions)["own"] is None, "a split stays empty"


def test_a_re_encoded_image_is_near_its_original_and_drawn_scenes_are_not() -> None:
    originals = [example.image for example in draw_world(120, 48, 1)]
    hashes = np.array([perceptual_hash(image) for image in originals], dtype=np.uint64)
    assert len(set(group_near_equal(hashes, 2))) >= 118
    for encoded in originals[:10]:
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(encoded)) as image:
            ImageEnhance.Brightness(image).enhance(0.95).save(buffer, "JPEG", quality=95)
        assert (perceptual_hash(encoded) ^ perceptual_hash(buffer.getvalue())).bit_count() <= 4
