"""Split images into train, validation and test without near-equal images on two sides, and measure what leaks.

Images are near-equal if their 64-bit perceptual hashes (imagehash.phash: signs of the low DCT coefficients) differ in
at most `hash_distance` bits, or if a chain of such images joins them.

1. The search is exact: two hashes at distance d or less agree on at least one of d + 1 bands of their bits.
2. The paper re-splits 60/20/20 and does not mention duplicates. Here a group of near-equal images stays together.
3. A published split keeps its images, except for groups in several splits: these go to the first of test, validation
   and train that holds a member, so that what was meant to be unseen stays unseen.
"""

import io
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import UInt64
from PIL import Image

from captioning.base.errors import UserError
from captioning.images.pictures import FORMATS
from captioning.images.table import apportion

HASH_BITS = 64
SPLITS = ("train", "validation", "test")
METHODS = ("ratio", "own")
SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
Split = dict[str, list[str]]


@dataclass(frozen=True)
class SplitImages:
    """What splits are made from, one entry an image: id, source, published split or "", and perceptual hash.

    `distance` is that of near-equal images, in bits; `ratios` and `seed` belong to the method `ratio`.
    """

    ids: Sequence[str]
    sources: Sequence[str]
    published_splits: Sequence[str]
    hashes: Sequence[int]
    distance: int
    ratios: Mapping[str, float]
    seed: int

    def group_images(self) -> list[int]:
        """Return the group of near-equal images of each image."""
        return group_near_equal(np.array(self.hashes, dtype=np.uint64), self.distance)

    def split(self, method: str, groups: Sequence[int]) -> Split:
        """Return the ids of each split by one of `METHODS`. Raises `UserError` if that is impossible."""
        if method == "own":
            return split_as_published(self.ids, self.published_splits, groups)
        return split_by_ratio(self.ids, self.sources, groups, self.ratios, self.seed)

    def measure_leakages(self, groups: Sequence[int], captions: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Measure the leakage of both methods, without and with groups; None if a method is impossible."""
        hash_of, group_of = (dict(zip(self.ids, values, strict=True)) for values in (self.hashes, groups))
        groupings = {"images_apart": range(len(self.ids)), "groups_whole": groups}
        leakages: dict[str, Any] = {}
        for method in METHODS:
            try:
                splits = {name: self.split(method, grouping) for name, grouping in groupings.items()}
            except UserError:  # the data set has no published split, or a split stays empty
                leakages[method] = None
                continue
            leakages[method] = {
                name: measure_leakage(split, captions, hash_of, group_of) for name, split in splits.items()
            }
        return leakages

    def count_images(self, split: Split, groups: Sequence[int]) -> dict[str, Any]:
        """Count the images of each split, in all and by source, and the near-equal ones."""
        source_of, sizes = dict(zip(self.ids, self.sources, strict=True)), np.unique(groups, return_counts=True)[1]
        return {
            "images": {name: len(ids) for name, ids in split.items()},
            "images_by_source": {
                source: {name: sum(source_of[id_] == source for id_ in ids) for name, ids in split.items()}
                for source in sorted(set(self.sources))
            },
            "near_equal_groups": int((sizes > 1).sum()),
            "images_in_groups": int(sizes[sizes > 1].sum()),
            "largest_group": int(sizes.max()),
        }


def perceptual_hash(encoded: bytes) -> int:
    """Return the 64-bit perceptual hash of an encoded image."""
    import imagehash

    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        return int(str(imagehash.phash(image)), 16)


def group_near_equal(hashes: UInt64[np.ndarray, " images"], distance: int) -> list[int]:
    """Return the group of each image, named by the index of its first member; a single image is a group."""
    parent = list(range(len(hashes)))

    def find_root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for first, second in find_near_pairs(hashes, distance):
        low, high = sorted((find_root(first), find_root(second)))
        parent[high] = low
    return [find_root(index) for index in range(len(hashes))]


def find_near_pairs(hashes: UInt64[np.ndarray, " images"], distance: int) -> Iterable[tuple[int, int]]:
    """Yield pairs of images whose hashes differ in at most `distance` bits, some of them more than once.

    Equal hashes are joined in a chain, not pair by pair, so that a thousand copies do not make a million pairs.
    """
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    yield from ((int(first[value]), index) for index, value in enumerate(inverse) if first[value] != index)
    edges = np.linspace(0, HASH_BITS, distance + 2).astype(int)
    for low, high in pairwise(edges):
        bands = (distinct >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(bands, kind="stable")
        starts = np.flatnonzero(np.r_[True, bands[order][1:] != bands[order][:-1]])
        for bucket in np.split(order, starts[1:]):
            for position, value in enumerate(bucket[:-1]):
                others = bucket[position + 1 :]
                near = others[np.bitwise_count(distinct[others] ^ distinct[value]) <= distance]
                yield from ((int(first[value]), int(first[other])) for other in near)


def split_by_ratio(
    ids: Sequence[str], sources: Sequence[str], groups: Sequence[int], ratios: Mapping[str, float], seed: int
) -> Split:
    """Return the sorted ids of each split. Within each source, the ratios hold up to the size of its groups.

    A group counts for the source of its first member. Raises `UserError` if a split stays empty.
    """
    result: Split = {name: [] for name in SPLITS}
    members = sorted(_group_members(groups), key=lambda group: ids[group[0]])
    for source in sorted(set(sources)):
        local = [group for group in members if sources[group[0]] == source]
        random.Random(f"split {source} {seed}").shuffle(local)
        local.sort(key=len, reverse=True)  # large groups first; small ones then even out the sizes
        room = apportion(sum(map(len, local)), {name: ratios[name] for name in SPLITS})
        for group in local:
            name = _choose_split(room, len(group))
            room[name] -= len(group)
            result[name] += [ids[index] for index in group]
    return _sort_ids(result)


def _choose_split(room: Mapping[str, int], size: int) -> str:
    """Fill one split after the other with single images, which are shuffled; put a larger group where most room is."""
    if size == 1:
        return next(name for name in SPLITS if room[name] > 0)
    return max(SPLITS, key=lambda name: room[name])


def split_as_published(ids: Sequence[str], published_splits: Sequence[str], groups: Sequence[int]) -> Split:
    """Return the sorted ids of each split as published, but with each group in one split (point 3).

    Raises `UserError` if an image has no published split, or a split stays empty.
    """
    lacking = [id_ for id_, name in zip(ids, published_splits, strict=True) if name not in SPLIT_NAMES]
    if lacking:
        raise UserError(
            f"split.method: 'own', but {lacking[0]!r} and {len(lacking) - 1} more images have no split of their own; "
            "use split.method: ratio"
        )
    result: Split = {name: [] for name in SPLITS}
    for group in _group_members(groups):
        name = max((SPLIT_NAMES[published_splits[index]] for index in group), key=SPLITS.index)
        result[name] += [ids[index] for index in group]
    return _sort_ids(result)


def _group_members(groups: Sequence[int]) -> list[list[int]]:
    members = defaultdict(list)
    for index, group in enumerate(groups):
        members[group].append(index)
    return list(members.values())


def _sort_ids(split: Split) -> Split:
    if empty := [name for name in SPLITS if not split[name]]:
        remedy = "take more images, or change split.ratios or split.hash_distance"
        raise UserError(f"split: no image in {', '.join(empty)}; {remedy}")
    return {name: sorted(ids) for name, ids in split.items()}


def measure_leakage(
    split: Mapping[str, Sequence[str]],
    captions: Mapping[str, Sequence[str]],
    hashes: Mapping[str, int],
    groups: Mapping[str, int],
) -> dict[str, float]:
    """Return the shares of the test split that are also in the training split, from 0 to 1, with four decimals.

    `captions`: captions that occur there word for word; `equal_images`: images with an equal hash there;
    `near_images`: images of a group that has a member there.
    """
    train, test = split["train"], split["test"]
    train_captions = {caption for id_ in train for caption in captions[id_]}
    train_hashes, train_groups = {hashes[id_] for id_ in train}, {groups[id_] for id_ in train}
    shares = {
        "captions": np.mean([caption in train_captions for id_ in test for caption in captions[id_]]),
        "equal_images": np.mean([hashes[id_] in train_hashes for id_ in test]),
        "near_images": np.mean([groups[id_] in train_groups for id_ in test]),
    }
    return {name: round(float(share), 4) for name, share in shares.items()}
