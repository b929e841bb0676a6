"""Changes between two revisions: noise or more, rows in one revision only, captions that moved most, refusals."""

from dataclasses import replace

import numpy as np
import pytest

from captioning.base.errors import UserError
from captioning.compare.changes import (
    BEYOND_NOISE,
    ONE_ONLY,
    SAME_CAPTIONS,
    WITHIN_NOISE,
    RowChange,
    compare_revisions,
    find_moved_captions,
    require_same_test_set,
)
from captioning.compare.page import make_cards, mark_words, render_page
from captioning.compare.revisions import ComparedRow, Revision
from captioning.compare.text import cider_cells, format_text, score_cells, summarise
from captioning.evaluation.significance import compare_changes
from captioning.metrics.bootstrap import interval, resampled_means

IDS = [f"i{k:02}" for k in range(60)]
NAMES = ("HEAD", "workspace")


class Texts(Revision):
    """A revision whose captions say which revision, row and image they are of."""

    def read_captions(self, row: str, seed: int) -> dict[str, str]:
        return {id_: f"{self.name} {row} {id_}" for id_ in IDS}


def revision(name: str, rows: dict[str, np.ndarray], kind: str = "adapted") -> Revision:
    """Make a revision from CIDEr by row, shape (seeds, images)."""
    ciders = {
        row: {seed: dict(zip(IDS, line, strict=True)) for seed, line in enumerate(v, 1)} for row, v in rows.items()
    }
    other = {"BLEU-4": 40.0, "METEOR": 30.0, "ROUGE-L": 50.0, "length": 10.0}
    means = {row: {"CIDEr": float(scores.mean())} | other for row, scores in rows.items()}
    entries = {row: ComparedRow(kind=kind, mean=mean) for row, mean in means.items()}
    return Texts(name, {id_: [f"a reference of {id_}"] for id_ in IDS}, entries, ciders, None)


def noise(deviation: float, seed: int = 1, seeds: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, deviation, (seeds, len(IDS)))


BASE = np.full((1, len(IDS)), 100.0) + noise(20, seed=9)


def changes(after: dict[str, np.ndarray], before: dict[str, np.ndarray] | None = None) -> dict[str, RowChange]:
    old = revision("HEAD", before or dict.fromkeys(after, BASE))
    return {change.row: change for change in compare_revisions(old, revision("workspace", after))}


def test_the_words_tell_noise_from_more() -> None:
    rows = changes({"far": BASE + 10 + noise(10), "near": BASE + noise(10, seed=3), "same": BASE})
    assert [rows[name].verdict for name in ("far", "near", "same")] == [BEYOND_NOISE, WITHIN_NOISE, SAME_CAPTIONS]
    far = rows["far"].difference
    assert far is not None and far.difference == pytest.approx(float((10 + noise(10)).mean()))
    assert far.family_low > 0
    assert rows["same"].difference is None


def test_a_measure_that_one_revision_lacks_is_no_change() -> None:
    old, new = revision("HEAD", {"mix": BASE}), revision("workspace", {"mix": BASE})
    measured = ComparedRow(kind="adapted", mean={**new.rows["mix"].mean, "Self-CIDEr": 50.0})
    new = replace(new, rows={"mix": measured})
    (change,) = compare_revisions(old, new)
    assert change.verdict == SAME_CAPTIONS and score_cells([change])[1] == []
    alone = replace(change, row="new", before=None)
    assert summarise([change, alone], len(IDS), 1) == [
        "No row of both revisions has another CIDEr on any of 60 test images.",
        "In one revision only: new.",
    ]


def test_a_row_of_one_revision_has_no_difference() -> None:
    rows = changes({"new": BASE, "mix": BASE}, {"old": BASE, "mix": BASE})
    assert list(rows) == ["new", "mix", "old"]
    assert (rows["new"].verdict, rows["old"].verdict) == (ONE_ONLY, ONE_ONLY)
    header, lines = cider_cells(list(rows.values()), NAMES)
    assert header[1:3] == ["CIDEr, HEAD", "workspace"]
    assert lines[0][1:] == ["–", f"{BASE.mean():.1f}", "–", "–", ONE_ONLY]


def test_the_interval_of_a_single_row_is_that_of_its_differences() -> None:
    """Resampling the differences themselves is the independent reference; the family of one row is nearly normal."""
    gaps = noise(10) + 3
    change = compare_changes({"mix": BASE}, {"mix": BASE + gaps}, seed=1)["mix"]
    assert (change.low, change.high) == pytest.approx(interval(resampled_means(gaps, seed=1)[0]))
    normal = 1.96 * gaps.std(ddof=1) / len(IDS) ** 0.5
    assert change.family_high - change.difference == pytest.approx(normal, rel=0.06)


def test_among_many_rows_the_margin_grows() -> None:
    """With 100 rows of noise, intervals of single rows exclude 0 for some of them by chance; the family's do not."""
    after = {f"r{number}": BASE + noise(10, seed=number) for number in range(100)}
    family = compare_changes(dict.fromkeys(after, BASE), after, seed=1).values()
    assert sum(change.low > 0 or change.high < 0 for change in family) >= 2
    assert not any(change.differs for change in family)


def test_with_several_seeds_their_deviation_counts_too() -> None:
    """All images gain 10 points in one of two seeds and lose 4 in the other: no noise of images, all of seeds."""
    before, shift = np.repeat(BASE, 2, axis=0) + noise(0.5, seeds=2), np.array([[10.0], [-4.0]])
    row = changes({"mix": before + shift + noise(0.1, seed=2, seeds=2)}, {"mix": before})["mix"]
    assert row.difference is not None and row.difference.family_low > 0
    assert row.verdict == WITHIN_NOISE
    assert "2 seeds" in summarise([row], 60, seeds=2)[-1]


def test_other_test_sets_are_refused() -> None:
    first, second = revision("A", {"mix": BASE}), revision("B", {"mix": BASE})
    other = {id_: captions for id_, captions in first.references.items() if id_ != "i07"}
    with pytest.raises(UserError, match=r"^A, B: their test sets differ \(60 and 59 images, 1 not the same.*'i07'"):
        require_same_test_set(first, replace(second, references=other))
    edited = {**first.references, "i03": ["another reference"]}
    with pytest.raises(UserError, match="60 and 60 images, 1 not the same, such as 'i03'"):
        compare_revisions(first, replace(second, references=edited))


def moved_case() -> tuple[Revision, Revision, list[RowChange]]:
    shift = np.zeros((1, len(IDS)))
    shift[0, 5], shift[0, 7], shift[0, 9] = 50.0, -80.0, 20.0
    before = revision("HEAD", {"mix": BASE, "same": BASE})
    after = revision("workspace", {"mix": BASE + shift, "same": BASE})
    return before, after, compare_revisions(before, after)


def test_the_captions_that_moved_most_come_first() -> None:
    before, after, rows = moved_case()
    moved = find_moved_captions(before, after, rows, 2)
    assert [(caption.id, round(caption.change)) for caption in moved] == [("i07", -80), ("i05", 50)]
    assert (moved[0].before, moved[0].after) == ("HEAD mix i07", "workspace mix i07")
    assert len(find_moved_captions(before, after, rows, 10)) == 3, "captions that did not move are none"


def test_text_and_page_say_the_same() -> None:
    before, after, rows = moved_case()
    moved = find_moved_captions(before, after, rows, 2)
    tables, sentences = [cider_cells(rows, NAMES), score_cells(rows)], summarise(rows, 60, 1)
    text = format_text(tables, sentences, moved, after.references)
    assert "1 row has other captions of 60 test images." in text
    assert "Within noise: mix." in text and "Another seed" in text
    assert max(map(len, text.splitlines())) <= 120
    cards = make_cards(moved, after.references, {"i05": b"five", "i07": b"seven"})
    page = render_page(NAMES, tables, sentences, cards)
    for sentence in sentences:
        assert sentence.replace("'", "&#39;") in page
    assert page.count("<img ") == page.count("data:image/webp") == 2
    assert page.index("i07") < page.index("i05")


def test_a_page_escapes_captions_and_fetches_nothing() -> None:
    before, after, rows = moved_case()
    moved = [
        replace(caption, after="<script>alert(1)</script>") for caption in find_moved_captions(before, after, rows, 1)
    ]
    page = render_page(
        NAMES, [cider_cells(rows, NAMES), score_cells(rows)], [], make_cards(moved, after.references, {"i07": b""})
    )
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "http://" not in page and "https://" not in page


def test_words_of_one_caption_are_marked() -> None:
    assert list(mark_words("a red plane near a road", "a blue plane near the road")) == [
        ("a", False),
        ("red", True),
        ("plane near", False),
        ("a", True),
        ("road", False),
    ]
    assert list(mark_words("", "a")) == []
