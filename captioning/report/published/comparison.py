"""Lay the scores of a run beside published ones, if both are of the same images; otherwise say why not.

1. The images are the same only under the data set's own split, and only if a part has as many as the official test:
   RISC's test is NWPU's and UCM's, and RSICD's set A; RISC's validation part of RSICD is set B.
2. What may be compared is written as sentences, with values from systems.toml.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from captioning.evaluation.outputs import PartScores
from captioning.evaluation.predictions import HUMAN
from captioning.report.published.systems import (
    DETAILS,
    MEASURES,
    READ,
    Measure,
    Published,
    System,
    describe_source,
    group_systems,
    read_published,
)
from captioning.report.table import RunOutputs, ScoreRow, ScoreTable
from captioning.report.table_text import NONE, Cells, source_score

FAIR_MARK = "RS-CapRet"  # one model for all data sets
NOT_COMPARABLE = "No published score may stand beside those of this run: "
SPLIT_ANEW = "the images were split anew (split.method: ratio, as in the paper), so these are other test images"
LISTED = "docs/scores.md lists the published scores, and says what may be compared."


@dataclass(frozen=True)
class PublishedComparison:
    """Sentences on what may be compared, a table for each measure, and one of sources; without tables, nothing may."""

    sentences: Sequence[str]
    tables: Mapping[str, Cells]
    origins: Cells | None = None


def compare_published(table: ScoreTable, run: RunOutputs) -> PublishedComparison:
    """Compare the rows of `table` with published systems."""
    published, sources = read_published(), table.rows[0].sources
    parts = find_official_parts(published, sources)
    reasons = [
        *(["the images are drawn"] if any("scene" in row.scores for row in table.rows) else []),
        *([] if run.splits.method == "own" else [SPLIT_ANEW]),
    ] or ([] if parts else [_explain_numbers(published, sources)])
    if reasons:
        return PublishedComparison([f"{NOT_COMPARABLE}{'; '.join(reasons)}. {LISTED}"], {})
    tables: dict[str, Cells] = {
        measure: _comparison_cells(published, parts, table, run, measure) for measure in MEASURES
    }
    origins = ["System", *DETAILS], group_systems(published, list(parts), _describe_origin)
    return PublishedComparison(describe_marks(published, parts), tables, origins)


def _describe_origin(system: System) -> list[str]:
    return [text.replace("https://", "") for text in describe_source(system)]


def find_official_parts(published: Published, sources: Mapping[str, PartScores]) -> dict[str, str]:
    """Return of each official test set the part of the run with the same images, by source and number."""
    return {
        name: part
        for name, entry in published.sets.items()
        for part, summary in sources.items()
        if part.split()[0] == entry.source and summary.images == entry.images
    }


def _explain_numbers(published: Published, sources: Mapping[str, PartScores]) -> str:
    counts = ", ".join(f"{name} {entry.images:,}" for name, entry in sources.items()) or "one source"
    sets = ", ".join(f"{entry.title} {entry.images:,}" for entry in published.sets.values())
    return f"no part has the images of an official test (here: {counts}; official: {sets})"


def describe_marks(published: Published, parts: Mapping[str, str]) -> list[str]:
    """Say what may be compared: the mark for one model on all data sets, and the best that is published."""
    mark, titles = published.find_system(FAIR_MARK), {name: entry.title for name, entry in published.sets.items()}
    fair = ", ".join(f"{mark.format_score(name, 'CIDEr')} ({titles[name]})" for name in mark.scores)
    best = {name: published.find_best(name) for name in parts}
    highest = "; ".join(
        f"{system.format_score(name, 'CIDEr')} on {titles[name]} ({system.name}, {READ[system.read]})"
        for name, system in best.items()
    )
    sentences = [
        f"Each row here is one model for all data sets, so its fair mark is {FAIR_MARK}: CIDEr {fair}.",
        f"The best published, most of it tuned on each data set alone, is {highest}; the two sets of RSICD are "
        "different images under one name, and their scores must not be compared with each other. A question mark says "
        "that the set is inferred from the height of the score.",
    ]
    if "RSICD-A" in parts and "RSICD-B" not in parts:
        sentences.append("With split.held_out: [RSICD], set B, the official test of RSICD, is scored as well.")
    return sentences


def _comparison_cells(
    published: Published, parts: Mapping[str, str], table: ScoreTable, run: RunOutputs, measure: Measure
) -> Cells:
    header = ["System", *(published.sets[name].title for name in parts), DETAILS[0]]

    def row_cells(row: ScoreRow) -> list[str]:
        intervals = run.significance.rows[row.key].sources if measure == "CIDEr" else {}
        scores = [_format_part(row, part, measure, intervals.get(part)) for part in parts.values()]
        return [row.name, *scores, NONE]

    def system_cells(system: System) -> list[str]:
        return [*map(partial(system.format_score, measure=measure), parts), READ[system.read]]

    compared = [row for row in table.rows if row.key != HUMAN]  # its references are fewer
    return header, [["This run"], *map(row_cells, compared), *group_systems(published, list(parts), system_cells)]


def _format_part(row: ScoreRow, part: str, measure: Measure, bounds: Sequence[float] | None) -> str:
    score = source_score(row, part, measure)
    return f"{score} ({bounds[0]:.1f} to {bounds[1]:.1f})" if bounds else score
