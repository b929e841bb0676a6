"""Compute what changed between two revisions: scores of rows, more than noise or not, and the captions that moved.

1. A row's CIDEr changes by the mean over images of the difference, with a paired bootstrap over images. The interval
   holds for all changed rows together (max-T), so that among many rows none is called changed by chance.
2. A row that exists in one revision only has no difference. Yardsticks have no captions of a model, and no verdict.
3. Captions are those of the first seed that both revisions have; CIDEr beside them is of these captions.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from captioning.base.errors import UserError
from captioning.base.quoting import shorten
from captioning.compare.revisions import Revision
from captioning.evaluation.significance import Difference, compare_changes

YARDSTICK = "yardstick"
COMPARED_MEASURES = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "length")  # those that are compared
BOOTSTRAP_SEED = 1
SAME_CAPTIONS, WITHIN_NOISE, BEYOND_NOISE, ONE_ONLY = (
    "same captions",
    "within noise",
    "more than noise",
    "in one revision only",
)


@dataclass(frozen=True)
class RowChange:
    """A row's mean scores in both revisions (None: it is not there), and the difference of CIDEr if it changed."""

    row: str
    before: Mapping[str, float] | None
    after: Mapping[str, float] | None
    difference: Difference | None

    @property
    def verdict(self) -> str:
        """Say in words if the change of CIDEr is more than noise."""
        if self.before is None or self.after is None:
            return ONE_ONLY
        if self.difference is None:
            return "" if self.is_changed else SAME_CAPTIONS
        return BEYOND_NOISE if self.difference.differs else WITHIN_NOISE

    @property
    def is_changed(self) -> bool:
        """Whether a measure differs, or the row is in one revision only."""
        if self.before is None or self.after is None:
            return True
        return any(self.before[name] != self.after[name] for name in COMPARED_MEASURES)


@dataclass(frozen=True)
class MovedCaption:
    """An image's captions by one row in both revisions, with their CIDEr."""

    row: str
    id: str
    before: str
    after: str
    cider_before: float
    cider_after: float

    @property
    def change(self) -> float:
        return self.cider_after - self.cider_before


def require_same_test_set(before: Revision, after: Revision) -> None:
    """Raise `UserError` unless both revisions have the same test images with the same references."""
    if before.references == after.references:
        return
    common_ids = before.references.keys() & after.references.keys()
    changed_ids = [id_ for id_ in common_ids if before.references[id_] != after.references[id_]]
    unequal = sorted(before.references.keys() ^ after.references.keys()) or sorted(changed_ids)
    fault = f"{len(before.references):,} and {len(after.references):,} images, {len(unequal):,} not the same"
    raise UserError(
        f"{before.name}, {after.name}: their test sets differ ({fault}, such as {shorten(unequal[0])}), so their "
        "scores cannot be compared; choose revisions with the same data and split"
    )


def compare_revisions(before: Revision, after: Revision) -> list[RowChange]:
    """Return the change of each row, in the order of `after`. Raises `UserError` if the test sets differ."""
    require_same_test_set(before, after)
    rows = list(dict.fromkeys([*after.rows, *before.rows]))
    changed = [row for row in rows if _has_changed(before, after, row)]
    old, new = ({row: revision.compared_scores(row) for row in changed} for revision in (before, after))
    differences = compare_changes(old, new, BOOTSTRAP_SEED) if changed else {}
    return [RowChange(row, _means(before, row), _means(after, row), differences.get(row)) for row in rows]


def _has_changed(before: Revision, after: Revision, row: str) -> bool:
    if row not in before.ciders or row not in after.ciders or after.rows[row].kind == YARDSTICK:
        return False
    return before.ciders[row] != after.ciders[row]


def _means(revision: Revision, row: str) -> Mapping[str, float] | None:
    return revision.rows[row].mean if row in revision.rows else None


def find_moved_captions(before: Revision, after: Revision, changes: list[RowChange], number: int) -> list[MovedCaption]:
    """Return of each changed row the `number` captions whose CIDEr moved most, the largest move first."""
    moved: list[MovedCaption] = []
    for change in changes:
        if change.difference is not None:
            captions = sorted(_moved_captions(before, after, change.row), key=lambda moved: -abs(moved.change))
            moved += captions[:number]
    return sorted(moved, key=lambda caption: (-abs(caption.change), caption.id, caption.row))


def _moved_captions(before: Revision, after: Revision, row: str) -> Iterator[MovedCaption]:
    seeds = sorted(before.ciders[row].keys() & after.ciders[row].keys())
    if not seeds:
        return
    texts = [revision.read_captions(row, seeds[0]) for revision in (before, after)]
    scores = [revision.ciders[row][seeds[0]] for revision in (before, after)]
    for id_ in after.references:
        if texts[0][id_] != texts[1][id_] and not np.isclose(scores[0][id_], scores[1][id_]):
            yield MovedCaption(row, id_, texts[0][id_], texts[1][id_], scores[0][id_], scores[1][id_])
