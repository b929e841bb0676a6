"""Split images so that near-equal images are in the same split, and measure how much of the test split leaks.

Images are near-equal if their 64-bit perceptual hashes (imagehash.phash: signs of the low DCT coefficients) differ in
at most `hash_distance` bits, or if a chain of such images joins them.

1. The search is exact: two hashes at distance d or less agree on at least one of d + 1 bands of their bits.
2. The paper re-splits 60/20/20 and does not mention duplicates. Here a group of near-equal images stays together.
3. A published split keeps its images, except for groups in several splits: these go to the first of test, held out,
   validation and train that holds a member, so that what was meant to be unseen stays unseen.
4. The published validation images of a source in `held_out` choose no epoch and no step: they are captioned and scored
   as a test set of their own.
5. A part that is scored alone has exactly the images of its published split, also those that were moved by point 3.
"""

import io
import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import UInt64
from PIL import Image

from captioning.base.errors import UserError
from captioning.base.quoting import shorten
from captioning.data.outputs import Leakage, LeakedShares, SplitStatistics
from captioning.images.decoded import FORMATS
from captioning.images.table import apportion

DRAWN_SPLITS = ("train", "validation", "test")
METHODS = ("ratio", "own")
HELD_OUT = "held_out"
PRECEDENCE = ("train", "validation", HELD_OUT, "test")  # a group in several published splits goes to the last
SPLIT_NAMES = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
SplitIds = dict[str, list[str]]


@dataclass(frozen=True)
class SplitImages:
    """What splits are made from, one entry an image: id, source, published split or "", and perceptual hash.

    `distance` is that of near-equal images, in bits; `ratios` and `seed` belong to the method `ratio`, and `held_out`,
    names of sources, to the method `own`.
    """

    ids: Sequence[str]
    sources: Sequence[str]
    published_splits: Sequence[str]
    hashes: Sequence[int]
    distance: int
    ratios: Mapping[str, float]
    seed: int
    held_out: Sequence[str] = ()

    def group_images(self) -> list[int]:
        """Return the group of near-equal images of each image."""
        return group_near_equal(np.array(self.hashes, dtype=np.uint64), self.distance)

    def split(self, method: str, groups: Sequence[int]) -> SplitIds:
        """Return the sorted ids of each split, with each group in one. Raises `UserError` if a split stays empty."""
        indices_by_group = defaultdict(list)
        for index, group in enumerate(groups):
            indices_by_group[group].append(index)
        choose_splits = self._split_as_published if method == "own" else self._split_by_ratio
        split: SplitIds = {
            name: [] for name in (*DRAWN_SPLITS, *([HELD_OUT] if method == "own" and self.held_out else []))
        }
        for name, indices in choose_splits(list(indices_by_group.values())):
            split[name] += [self.ids[index] for index in indices]
        if empty := ", ".join(name for name, ids in split.items() if not ids):
            remedy = "take more images, or change split.ratios, hash_distance or held_out"
            raise UserError(f"split: no image in {empty}; {remedy}")
        return {name: sorted(ids) for name, ids in split.items()}

    def _split_by_ratio(self, groups: list[list[int]]) -> Iterator[tuple[str, list[int]]]:
        """Yield groups with their splits. The ratios hold in each source (a group's is that of its first member).

        Large groups come first, each in the split that lacks most; shuffled single images fill one split after another.
        """
        groups = sorted(groups, key=lambda group: self.ids[group[0]])
        for source in sorted(set(self.sources)):
            local = [group for group in groups if self.sources[group[0]] == source]
            random.Random(f"split {source} {self.seed}").shuffle(local)
            remaining_images = apportion(sum(map(len, local)), {name: self.ratios[name] for name in DRAWN_SPLITS})
            for group in sorted(local, key=len, reverse=True):
                emptiest = max(DRAWN_SPLITS, key=lambda name: remaining_images[name])
                name = emptiest if len(group) > 1 else next(name for name in DRAWN_SPLITS if remaining_images[name] > 0)
                remaining_images[name] -= len(group)
                yield name, group

    def _split_as_published(self, groups: list[list[int]]) -> Iterator[tuple[str, list[int]]]:
        """Yield groups with their published splits (point 3). Raises `UserError` if an image has none."""
        lacking = [id_ for id_, name in zip(self.ids, self.published_splits, strict=True) if name not in SPLIT_NAMES]
        if lacking:
            fault = f"'own', but {lacking[0]!r} and {len(lacking) - 1} more images have no published split"
            raise UserError(f"split.method: {fault}; use split.method: ratio")
        self._require_held_out_sources()
        for group in groups:
            yield max((self._published_split(index) for index in group), key=PRECEDENCE.index), group

    def _published_split(self, index: int) -> str:
        name = SPLIT_NAMES[self.published_splits[index]]
        return HELD_OUT if name == "validation" and self.sources[index] in self.held_out else name

    def _require_held_out_sources(self) -> None:
        pairs = zip(self.sources, self.published_splits, strict=True)
        sources = sorted({source for source, name in pairs if SPLIT_NAMES[name] == "validation"})
        if unknown := [source for source in self.held_out if source not in sources]:
            names = shorten(", ".join(sources))
            raise UserError(f"split.held_out: {shorten(unknown[0])} has no validation images; choose from {names}")

    def find_scored_parts(self, split: SplitIds, method: str) -> dict[str, list[str]]:
        """Return the ids of each part that is scored alone, by split and source, such as `test:NWPU`."""
        captioned, parts = {*split["test"], *split.get(HELD_OUT, [])}, defaultdict(list)
        for index, id_ in enumerate(self.ids):
            name = self._published_split(index) if method == "own" else "test"
            if id_ in captioned and name in ("test", HELD_OUT):
                parts[f"{'validation' if name == HELD_OUT else name}:{self.sources[index]}"].append(id_)
        return {label: sorted(ids) for label, ids in sorted(parts.items())}

    def measure_leakages(
        self, groups: Sequence[int], captions: Mapping[str, Sequence[str]]
    ) -> dict[str, Leakage | None]:
        """Measure the leakage of each method; that of an impossible one is None. `captions`: by image."""
        hashes = {id_: [value] for id_, value in zip(self.ids, self.hashes, strict=True)}
        group_of = {id_: [group] for id_, group in zip(self.ids, groups, strict=True)}
        properties = {"captions": captions, "equal_images": hashes, "near_images": group_of}
        groupings = {"images_apart": range(len(self.ids)), "groups_whole": groups}
        leakages: dict[str, Leakage | None] = {}
        for method in METHODS:
            try:
                splits = {name: self.split(method, grouping) for name, grouping in groupings.items()}
                shares = {name: _measure_shares(split, properties) for name, split in splits.items()}
                leakages[method] = Leakage(**shares)
            except UserError:  # the data set has no published split, or a split stays empty
                leakages[method] = None
        return leakages

    def describe(
        self, method: str, split: SplitIds, groups: Sequence[int], captions: Mapping[str, Sequence[str]]
    ) -> SplitStatistics:
        """Count the images of each split, in all and by source, and the near-equal ones; measure the leakages."""
        source_of, sizes = dict(zip(self.ids, self.sources, strict=True)), np.unique(groups, return_counts=True)[1]
        return SplitStatistics(
            method=method,
            images={name: len(ids) for name, ids in split.items()},
            images_by_source={
                source: {name: sum(source_of[id_] == source for id_ in ids) for name, ids in split.items()}
                for source in sorted(set(self.sources))
            },
            near_equal_groups=int((sizes > 1).sum()),
            images_in_groups=int(sizes[sizes > 1].sum()),
            largest_group=int(sizes.max()),
            leakage=self.measure_leakages(groups, captions),
        )


def _measure_shares(split: SplitIds, properties: Mapping[str, Mapping[str, Sequence[Hashable]]]) -> LeakedShares:
    """Return the share of each property's test values that are also training values, with four decimals."""
    shares = {}
    for name, values in properties.items():
        train = {value for id_ in split["train"] for value in values[id_]}
        share = np.mean([value in train for id_ in split["test"] for value in values[id_]])
        shares[name] = round(float(share), 4)
    return LeakedShares(**shares)


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
    edges = np.linspace(0, 64, distance + 2).astype(int)
    for low, high in pairwise(edges):
        bands = (distinct >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(bands, kind="stable")
        starts = np.flatnonzero(np.r_[True, bands[order][1:] != bands[order][:-1]])
        for bucket in np.split(order, starts[1:]):
            for position, value in enumerate(bucket[:-1]):
                others = bucket[position + 1 :]
                near = others[np.bitwise_count(distinct[others] ^ distinct[value]) <= distance]
                yield from ((int(first[value]), int(first[other])) for other in near)
