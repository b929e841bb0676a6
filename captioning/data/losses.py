"""Say what of a source was set aside, and refuse a source that lost too much.

Rows, captions and images without a row are counted apart: five captions of an image may be fine where its row is not.
"""

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from captioning.base.errors import UserError
from captioning.base.files import write_records
from captioning.base.quoting import csv_cell, shorten
from captioning.data.readers.rows import SetAside, Source
from captioning.runtime.paths import SET_ASIDE, main_folder

MAX_SHARE = 0.05  # of the rows, of the captions, or of the images that no row names
MAX_REASONS = 5  # in a message
NUMBER = re.compile(r"\d+")


def count_reasons(source: Source) -> dict[str, int]:
    """Count what was set aside by reason, without the values in it, the most frequent first."""
    counts = Counter(map(_general_reason, source.set_aside))
    return {reason: counts[reason] for reason in sorted(counts, key=lambda reason: (-counts[reason], reason))}


def _general_reason(aside: SetAside) -> str:
    """Return the reason up to its values and its remedy: `caption_3 is nearly empty: '.'` and others are one."""
    reason = re.split(r"[;:(,]", aside.reason)[0]
    return NUMBER.sub("…", re.sub(r"^caption_\d+", "a caption", reason)).strip()


def describe_losses(source: Source) -> str:
    """Return one line with a count for each reason."""
    reasons = count_reasons(source)
    listed = [f"{count:,} × {reason}" for reason, count in list(reasons.items())[:MAX_REASONS]]
    more = [f"{len(reasons) - MAX_REASONS} more reasons"] if len(reasons) > MAX_REASONS else []
    return f"{len(source.set_aside):,} set aside{': ' * bool(listed)}{'; '.join([*listed, *more])}"


def refuse_losses(source: Source, path: str, images: int) -> None:
    """Raise `UserError` if more than `MAX_SHARE` was set aside, or all of it; `images`: how many remain."""
    counts: Counter[str] = Counter(aside.kind for aside in source.set_aside)
    totals = {
        "row": ("rows", source.total),
        "caption": ("captions", counts["caption"] + source.kept_captions),
        "image": ("images, which no row names,", source.rows + counts["image"]),
    }
    lost = [kind for kind, (_, total) in totals.items() if counts[kind] > MAX_SHARE * total]
    if images and not lost:
        return
    shares = [f"{counts[kind]:,} of {total:,} {name}" for kind, (name, total) in totals.items() if kind in lost]
    write_losses(source, listing := main_folder(SET_ASIDE))
    fault = f"{' and '.join(shares)} cannot be used, more than {MAX_SHARE:.0%}" if images else "no usable image"
    remedy = "correct them, or set data.set_aside to allow" if images else "correct them"
    raise UserError(
        f"{path}: {fault}; {describe_losses(source)}{_example(source, lost)}; {listing} lists them: {remedy}"
    )


def _example(source: Source, kinds: Collection[str]) -> str:
    """Return the first image that was set aside for the most frequent reason, with its values; "" if there is none.

    `kinds` are those of which too many were lost. A row that is lost often leaves an image without a row, so images are
    examples only if they are the only kind.
    """
    causes = [aside for aside in source.set_aside if aside.kind in kinds and (aside.kind != "image" or len(kinds) == 1)]
    causes = causes or source.set_aside
    if not causes:
        return ""
    counts = Counter(map(_general_reason, causes))
    frequent = min(counts, key=lambda reason: (-counts[reason], reason))
    first = min(aside for aside in causes if _general_reason(aside) == frequent)
    return f"; for example {shorten(first.image)}: {first.reason}"


def write_losses(source: Source, path: Path) -> None:
    """Write what was set aside as CSV that no spreadsheet runs, sorted by line."""
    unused = ((csv_cell(row.image), row.line, csv_cell(row.reason)) for row in sorted(source.set_aside))
    columns = ["image", "line", "reason"]
    write_records(path, [dict(zip(columns, row, strict=True)) for row in unused], columns)
