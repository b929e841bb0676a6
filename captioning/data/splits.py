"""Train, validation and test ids, with near-equal images on one side, and how much leaks across.

Images are near-equal where their 64-bit perceptual hashes (imagehash.phash: signs of the low DCT coefficients) differ
in at most `hash_distance` bits, or where a chain of such images joins them.

1. The search is exact: two hashes at distance d or less agree on at least one of d + 1 bands of their bits.
2. The paper re-splits 60/20/20 and says nothing of duplicates; here a group of near-equal images is never torn.
3. A split that the data set brings keeps its images but for torn groups, which go where their first member is in the
   order test, validation, train: what was meant to be unseen stays unseen.
"""

import io
import random
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
    """What splits are made from, one entry an image: id, source, its own split or "", and perceptual hash.

    `ratios` and `seed` are those of the method `ratio`; `distance` is that of near-equal images, in bits.
    """

    ids: Sequence[str]
    sources: Sequence[str]
    published_splits: Sequence[str]
    hashes: Sequence[int]
    distance: int
    ratios: Mapping[str, float]
    seed: int

    def group_images(self) -> list[int]:
        """The group of near-equal images that each belongs to."""
        return group_near_equal(np.array(self.hashes, dtype=np.uint64), self.distance)

    def split(self, method: str, groups: Sequence[int]) -> Split:
        """Ids of each split by one of `METHODS`. Raises `UserError` where that is impossible."""
        if method == "own":
            return split_as_published(self.ids, self.published_splits, groups)
        return split_by_ratio(self.ids, self.sources, groups, self.ratios, self.seed)

    def measure_leakages(self, groups: Sequence[int], captions: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """`leakage` of both methods, with images apart and with groups whole; None where the method is impossible."""
        hash_of, group_of = (dict(zip(self.ids, of, strict=True)) for of in (self.hashes, groups))
        members = {"images_apart": range(len(self.ids)), "groups_whole": groups}
        found: dict[str, Any] = {}
        for method in METHODS:
            try:
                ways = {way: self.split(method, of) for way, of in members.items()}
            except UserError:  # the data set has no split of its own, or a split stays empty
                found[method] = None
                continue
            found[method] = {way: measure_leakage(split, captions, hash_of, group_of) for way, split in ways.items()}
        return found

    def count_images(self, split: Split, groups: Sequence[int]) -> dict[str, Any]:
        """How many images each split holds, in all and of each source, and how many near-equal ones there are."""
        source_of, members = dict(zip(self.ids, self.sources, strict=True)), np.unique(groups, return_counts=True)[1]
        return {
            "images": {name: len(ids) for name, ids in split.items()},
            "images_by_source": {
                source: {name: sum(source_of[id_] == source for id_ in ids) for name, ids in split.items()}
                for source in sorted(set(self.sources))
            },
            "near_equal_groups": int((members > 1).sum()),
            "images_in_groups": int(members[members > 1].sum()),
            "largest_group": int(members.max()),
        }


def perceptual_hash(encoded: bytes) -> int:
    """The 64-bit perceptual hash of an encoded image."""
    import imagehash

    with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
        return int(str(imagehash.phash(image)), 16)


def group_near_equal(hashes: UInt64[np.ndarray, " images"], distance: int) -> list[int]:
    """The group of each image, named by its first member's place; single images are groups of their own."""
    parent = list(range(len(hashes)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for first, second in find_near_pairs(hashes, distance):
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return [root(place) for place in range(len(hashes))]


def find_near_pairs(hashes: UInt64[np.ndarray, " images"], distance: int) -> Iterable[tuple[int, int]]:
    """Pairs of images whose hashes differ in at most `distance` bits; a pair may come more than once.

    Equal hashes are joined in a chain, not pair by pair, so that a thousand copies do not make a million pairs.
    """
    distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    yield from ((int(first[which]), place) for place, which in enumerate(inverse) if first[which] != place)
    edges = np.linspace(0, HASH_BITS, distance + 2).astype(int)
    for begin, end in pairwise(edges):
        bands = (distinct >> np.uint64(begin)) & np.uint64((1 << int(end - begin)) - 1)
        order = np.argsort(bands, kind="stable")
        starts = np.flatnonzero(np.r_[True, bands[order][1:] != bands[order][:-1]])
        for bucket in np.split(order, starts[1:]):
            for place, one in enumerate(bucket[:-1]):
                others = bucket[place + 1 :]
                near = others[np.bitwise_count(distinct[others] ^ distinct[one]) <= distance]
                yield from ((int(first[one]), int(first[other])) for other in near)


def split_by_ratio(
    ids: Sequence[str], sources: Sequence[str], groups: Sequence[int], ratios: Mapping[str, float], seed: int
) -> Split:
    """Ids of each split, sorted. Groups stay whole; within each source the ratios hold up to the size of its groups.

    A group counts for the source of its first member. Raises `UserError` where a split stays empty.
    """
    members = _members(groups)
    result: Split = {name: [] for name in SPLITS}
    for source in sorted(set(sources)):
        mine = [of for first, of in sorted(members.items(), key=lambda one: ids[one[0]]) if sources[first] == source]
        random.Random(f"split {source} {seed}").shuffle(mine)
        mine.sort(key=len, reverse=True)  # large groups first; the small ones then even things out
        room = apportion(sum(map(len, mine)), {name: ratios[name] for name in SPLITS})
        for group in mine:
            name = _roomiest(room, len(group))
            room[name] -= len(group)
            result[name] += [ids[place] for place in group]
    return _checked(result)


def _roomiest(room: Mapping[str, int], size: int) -> str:
    """Single images, in shuffled order, fill one split after the other; a larger group goes where most room is."""
    if size == 1:
        return next(name for name in SPLITS if room[name] > 0)
    return max(SPLITS, key=lambda name: room[name])


def split_as_published(ids: Sequence[str], own: Sequence[str], groups: Sequence[int]) -> Split:
    """Ids of each split as the data set has them, sorted; torn groups are moved whole (difference 3).

    Raises `UserError` where an image has no split of its own, or a split stays empty.
    """
    lacking = [id_ for id_, name in zip(ids, own, strict=True) if name not in SPLIT_NAMES]
    if lacking:
        raise UserError(
            f"split.method: 'own', but {lacking[0]!r} and {len(lacking) - 1} more images have no split of their own; "
            "use split.method: ratio"
        )
    result: Split = {name: [] for name in SPLITS}
    for places in _members(groups).values():
        name = max((SPLIT_NAMES[own[place]] for place in places), key=SPLITS.index)
        result[name] += [ids[place] for place in places]
    return _checked(result)


def _members(groups: Sequence[int]) -> dict[int, list[int]]:
    members: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    return members


def _checked(result: Split) -> Split:
    empty = [name for name in SPLITS if not result[name]]
    if empty:
        remedy = "take more images, or mend split.ratios or split.hash_distance"
        raise UserError(f"split: no image in {', '.join(empty)}; {remedy}")
    return {name: sorted(ids) for name, ids in result.items()}


def measure_leakage(
    split: Mapping[str, Sequence[str]],
    captions: Mapping[str, Sequence[str]],
    hashes: Mapping[str, int],
    groups: Mapping[str, int],
) -> dict[str, float]:
    """What of the test split is in the training split, too, as shares from 0 to 1 with four decimals.

    `captions`: of the captions, those that occur there word for word; `equal_images` and `near_images`: of the
    images, those that have one there with the same hash, or in the same group.
    """
    train, test = split["train"], split["test"]
    seen = {caption for id_ in train for caption in captions[id_]}
    told = [caption in seen for id_ in test for caption in captions[id_]]
    equal, near = {hashes[id_] for id_ in train}, {groups[id_] for id_ in train}
    shares = {
        "captions": np.mean(told),
        "equal_images": np.mean([hashes[id_] in equal for id_ in test]),
        "near_images": np.mean([groups[id_] in near for id_ in test]),
    }
    return {name: round(float(share), 4) for name, share in shares.items()}
