"""Near-equal images are found exactly and never torn; ratios hold within a source; leakage is counted by hand."""

import io
import random
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from captioning.base.errors import UserError
from captioning.data.readers.drawn import draw_world
from captioning.data.splits import (
    find_near_pairs,
    group_near_equal,
    measure_leakage,
    perceptual_hash,
    split_as_published,
    split_by_ratio,
)

RATIOS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def _hashes(seed: int, number: int = 60) -> np.ndarray:
    """Random hashes, and copies of them with up to six bits turned."""
    rng = random.Random(seed)
    hashes = [rng.getrandbits(64) for _ in range(number)]
    for _ in range(number):
        one = rng.choice(hashes)
        for bit in rng.sample(range(64), rng.randint(0, 6)):
            one ^= 1 << bit
        hashes.append(one)
    return np.array(hashes, dtype=np.uint64)


@pytest.mark.parametrize("distance", [0, 1, 2, 5, 16])
def test_near_pairs_join_what_brute_force_joins(distance: int) -> None:
    hashes = _hashes(distance)
    pairs = combinations(range(len(hashes)), 2)
    links = {(one, other) for one, other in pairs if int(hashes[one] ^ hashes[other]).bit_count() <= distance}
    assert {tuple(sorted(pair)) for pair in find_near_pairs(hashes, distance)} <= links
    reached = list(range(len(hashes)))
    for _ in hashes:
        for first, second in links:
            reached[first] = reached[second] = min(reached[first], reached[second])
    assert group_near_equal(hashes, distance) == reached
    assert len(set(reached)) < len(hashes)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("AB"), st.integers(1, 4)), min_size=40, max_size=60), st.integers(0, 9))
def test_groups_stay_whole_and_ratios_hold(sizes: list[tuple[str, int]], seed: int) -> None:
    sources = [source for source, size in sizes for _ in range(size)]
    starts = np.cumsum([0, *(size for _, size in sizes)])
    groups = [int(start) for start, (_, size) in zip(starts, sizes, strict=False) for _ in range(size)]
    ids = [f"i{place}" for place in range(len(groups))]
    split = split_by_ratio(ids, sources, groups, RATIOS, seed)
    side = {id_: name for name, of in split.items() for id_ in of}
    assert sorted(side) == sorted(ids) and sum(map(len, split.values())) == len(ids)
    assert all(side[id_] == side[ids[group]] for id_, group in zip(ids, groups, strict=True))
    totals, found = Counter(sources), Counter((sources[int(id_[1:])], name) for id_, name in side.items())
    assert all(abs(found[source, name] - totals[source] * RATIOS[name]) <= 4 for source in totals for name in RATIOS)


def test_ratios_are_exact_without_groups_and_seeded() -> None:
    ids = [f"i{place}" for place in range(100)]
    one, again, other = (split_by_ratio(ids, ["A"] * 80 + ["B"] * 20, range(100), RATIOS, seed) for seed in (1, 1, 2))
    assert {name: len(of) for name, of in one.items()} == {"train": 60, "validation": 20, "test": 20}
    assert one == again != other
    assert one["train"] == sorted(one["train"])


def test_own_split_moves_torn_groups_towards_test() -> None:
    split = split_as_published(list("abcdef"), ["train", "val", "test", "train", "train", "val"], [0, 1, 2, 2, 4, 4])
    assert split == {"train": ["a"], "validation": ["b", "e", "f"], "test": ["c", "d"]}


def test_own_split_must_be_there() -> None:
    with pytest.raises(UserError, match=r"'b' and 0 more images have no split of their own; use split\.method: ratio"):
        split_as_published(["a", "b"], ["train", ""], [0, 1])


def test_an_empty_split_is_told() -> None:
    with pytest.raises(UserError, match="no image in validation, test"):
        split_by_ratio(["a", "b"], ["A", "A"], [0, 0], RATIOS, 1)


def test_leakage_by_hand() -> None:
    split = {"train": ["a", "b"], "validation": [], "test": ["c", "d"]}
    captions = {"a": ["x", "y"], "b": ["z"], "c": ["x", "new"], "d": ["new", "z"]}
    found = measure_leakage(split, captions, {"a": 1, "b": 2, "c": 1, "d": 3}, {"a": 0, "b": 1, "c": 0, "d": 1})
    assert found == {"captions": 0.5, "equal_images": 0.5, "near_images": 1.0}


def test_a_re_encoded_picture_is_near_its_original_and_drawn_scenes_are_not() -> None:
    originals = [one.image for one in draw_world(120, 48, 1)]
    hashes = np.array([perceptual_hash(image) for image in originals], dtype=np.uint64)
    assert len(set(group_near_equal(hashes, 2))) >= 118
    for encoded in originals[:10]:
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(encoded)) as image:
            ImageEnhance.Brightness(image).enhance(0.95).save(buffer, "JPEG", quality=95)
        assert (perceptual_hash(encoded) ^ perceptual_hash(buffer.getvalue())).bit_count() <= 4
