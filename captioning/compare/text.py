"""Say in words and tables what changed between two revisions."""

import textwrap
from collections.abc import Mapping, Sequence

from captioning.compare.changes import BEYOND_NOISE, COMPARED_MEASURES, ONE_ONLY, WITHIN_NOISE, MovedCaption, RowChange
from captioning.metrics.bootstrap import RESAMPLES
from captioning.report.table_text import NONE, Cells

OTHER_MEASURES = COMPARED_MEASURES[1:]
WORDS = "in words"
WIDTH = 110  # characters of a line


def cider_cells(changes: Sequence[RowChange], names: Sequence[str]) -> Cells:
    """Return CIDEr of each row in both revisions, the change with its interval, and the verdict."""
    header = ["row", f"CIDEr, {names[0]}", names[1], "change", "95 % interval", WORDS]
    return header, [[change.row, *_pair(change, "CIDEr"), _interval(change), change.verdict] for change in changes]


def score_cells(changes: Sequence[RowChange]) -> Cells:
    """Return the other scores of Table II of both revisions, as `before → after`, of the rows that changed."""
    lines = [
        [change.row, *(_arrow(change, name) for name in OTHER_MEASURES)] for change in changes if change.is_changed
    ]
    return ["row", *OTHER_MEASURES], lines


def _pair(change: RowChange, name: str) -> list[str]:
    before, after = (NONE if means is None else f"{means[name]:.1f}" for means in (change.before, change.after))
    if change.before is None or change.after is None:
        return [before, after, NONE]
    difference = change.after[name] - change.before[name]
    return [before, after, f"{difference:+z.1f}" if difference else "0"]


def _arrow(change: RowChange, name: str) -> str:
    before, after, difference = _pair(change, name)
    if before == after:
        return before
    return f"{before} → {after}" if difference == "+0.0" else f"{before} → {after} ({difference})"


def _interval(change: RowChange) -> str:
    difference = change.difference
    return NONE if difference is None else f"{difference.family_low:+.1f} to {difference.family_high:+.1f}"


def summarise(changes: Sequence[RowChange], images: int, seeds: int) -> list[str]:
    """Say which rows changed beyond noise, and what this does not show."""
    changed = [change for change in changes if change.difference]
    single = [change.row for change in changes if change.verdict == ONE_ONLY]
    one_sided = [f"In one revision only: {', '.join(single)}."] if single else []
    if not changed:
        return [f"No row of both revisions has another CIDEr on any of {images:,} test images.", *one_sided]
    noticed = [_describe(change) for change in changed if change.verdict == BEYOND_NOISE]
    rows_within = [change.row for change in changed if change.verdict == WITHIN_NOISE]
    counts = f"{len(changed)} row{'s have' if len(changed) > 1 else ' has'} other captions of {images:,} test images."
    sentences = [f"More than noise: {', '.join(noticed)}." if noticed else "No change is more than noise."]
    sentences += [f"Within noise: {', '.join(rows_within)}."] if rows_within else []
    interval = (
        f"Intervals: paired bootstrap over images, {RESAMPLES:,} resamples, for all changed rows together (max-T)."
    )
    if seeds > 1:
        noise = f"With {seeds} seeds, a t test over seeds must reject too before a change counts as more than noise."
    else:
        noise = (
            "One seed a row: this compares these captions. Another seed could move them as far; before you believe in "
            "the change of a recipe, train with several seeds."
        )
    return [counts, *sentences, *one_sided, interval, noise]


def _describe(change: RowChange) -> str:
    return f"{change.row} ({change.difference.difference:+.1f})" if change.difference else change.row


def format_text(
    tables: Sequence[Cells],
    sentences: Sequence[str],
    moved: Sequence[MovedCaption],
    references: Mapping[str, Sequence[str]],
) -> str:
    """Return the comparison for a terminal."""
    parts = ["\n".join(align(*tables[0])), "\n".join(textwrap.fill(text, WIDTH) for text in sentences)]
    parts += ["\n".join(align(*table)) for table in tables[1:] if table[1]]
    parts += ["Captions that moved most"] if moved else []
    parts += ["\n".join(_moved_lines(caption, references[caption.id][0])) for caption in moved]
    return "\n\n".join(parts) + "\n"


def align(header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines; the first column is aligned left, and the last if it has words."""
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rows = [header, *lines]
    left_columns = {0, len(header) - 1} if header[-1] == WORDS else {0}
    return [
        "  ".join(
            cell.ljust(width) if number in left_columns else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _moved_lines(caption: MovedCaption, reference: str) -> list[str]:
    scores = f"CIDEr {caption.cider_before:.1f} → {caption.cider_after:.1f} ({caption.change:+.1f})"
    texts = {"before": caption.before, "after": caption.after, "reference": reference}
    return [f"{caption.id}, {caption.row}: {scores}", *(f"  {name:<9}  {text}" for name, text in texts.items())]
