"""Write Table II and its notes as text: cells, Markdown, CSV and JSON.

A second table has the scores against `caption_1` alone, since the paper does not say how many references it scored. A
third one has those of each source, if there are several. A fourth one has CIDEr under protocols that others used.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pydantic import TypeAdapter

from captioning.evaluation.predictions import CAPTION_1
from captioning.report.table import ScoreRow, ScoreTable

SCORES = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "length")
DIVERSITY = "Self-CIDEr"
SHARES = {
    "distinct": "distinct %",
    "ended": "ended %",
    "scene": "scene %",
    "colour": "colour %",
}  # 0 to 1 in the scores, percent in the table
NONE = "–"
Cells = tuple[list[str], list[list[str]]]  # header and rows; a row of one text is a group's title


def table_notes(table: ScoreTable) -> list[str]:
    """Return what a reader must know to read the numbers."""
    seeds, tests = len(table.seeds), ""
    noise = (
        "One seed for each variant: noise between runs is not measured. Letters and intervals are about these "
        "captions; they cannot show that one recipe is better than another."
    )
    if seeds > 1:
        tests = "; where rows have several seeds, t tests over them must reject too, each pair alone"
        noise = f"Mean ± standard deviation over {seeds} seeds; a difference within these deviations is noise. "
        noise += "Rows without ± have no seed."
    return [
        f"Protocol: {table.rows[0].signature}; {table.images:,} test images. CIDEr, BLEU, METEOR, ROUGE-L and "
        "Self-CIDEr times 100; length in words; share: trainable of all parameters.",
        f"95 % interval: of CIDEr, paired bootstrap over test images with {table.resamples:,} resamples. Differs: rows "
        "that share a letter do not differ significantly in CIDEr, rows that share none do, at 5 % for all pairs "
        f"together (max-T{tests}). A row without a letter is scored against other references.",
        noise,
        "Diversity of the captions of different images: Self-CIDEr is 0 if all are the same and 100 if no two share an "
        "n-gram; distinct: the number of different captions divided by that of all.",
    ]


def table_cells(table: ScoreTable) -> Cells:
    """Return Table II as texts, without empty columns."""
    shares = {key: title for key, title in SHARES.items() if any(key in row.scores for row in table.rows)}
    columns: dict[str, Callable[[ScoreRow], str]] = {
        "CIDEr": lambda row: _format_score(row, "CIDEr"),
        "95 % interval": lambda row: f"{row.interval[0]:.1f} to {row.interval[1]:.1f}",
        "differs": lambda row: row.letters or NONE,
        "CIDEr, paper": lambda row: f"{row.paper.CIDEr:.1f}" if row.paper and row.paper.CIDEr is not None else NONE,
        **{key: partial(_format_score, key=key) for key in (*SCORES[1:], DIVERSITY)},
        **{title: partial(_format_score, key=key, factor=100) for key, title in shares.items()},
        "trainable": lambda row: format_count(row.parameters),
        "trainable, paper": lambda row: (row.paper and row.paper.parameters) or NONE,
        "share %": lambda row: NONE if row.share is None else f"{row.share:.3g}",
        "share %, paper": lambda row: (row.paper and row.paper.share) or NONE,
    }
    columns = {
        title: cell
        for title, cell in columns.items()
        if not title.endswith(", paper") or any(cell(row) != NONE for row in table.rows)
    }
    return ["Model", *columns], _group_rows(table.rows, lambda row: [cell(row) for cell in columns.values()])


def source_cells(table: ScoreTable) -> Cells | None:
    """Return each score of the total and of each source alone; None for a single source."""
    sources = list(table.rows[0].sources)
    header = [f"{name}, {part}" for name in SCORES[:-1] for part in ("all", *sources)]
    return (["Model", *header], _group_rows(table.rows, partial(_source_scores, sources=sources))) if sources else None


def _source_scores(row: ScoreRow, sources: Sequence[str]) -> list[str]:
    scores = ([_format_score(row, key), *(source_score(row, name, key) for name in sources)] for key in SCORES[:-1])
    return [text for texts in scores for text in texts]


def source_score(row: ScoreRow, source: str, key: str) -> str:
    """Return a score of one source alone; the human row has none if no image has a second reference."""
    entry = row.sources.get(source)
    return _format_value(entry.mean, entry.deviation, key) if entry else NONE


def source_note(table: ScoreTable) -> str:
    """Say what the scores of a source are, and how many images it has."""
    counts = ", ".join(f"{name} {entry.images:,}" for name, entry in table.rows[0].sources.items())
    is_held_out = any("split:validation" in entry.signature for entry in table.rows[0].sources.values())
    held_out = " The validation part was held out: it chose no epoch and no step, and is not in the total."
    return (
        "Each source is scored alone, with the document frequencies of its own references, as published scores are; so "
        f"the total is not a mean of the sources. Images: {counts}. Protocol of each: as above, with df and split of "
        f"the source.{held_out if is_held_out else ''}"
    )


def caption_1_cells(table: ScoreTable) -> Cells:
    """Return the scores against `caption_1` alone, of the rows that have them."""
    rows = [row for row in table.rows if row.signature_alone]
    names = SCORES[:-1]
    return ["Model", *names], _group_rows(rows, lambda row: [_format_score(row, name + CAPTION_1) for name in names])


def caption_1_note(table: ScoreTable) -> str:
    """Return the protocol of the scores against `caption_1` alone."""
    reason = "Against each image's first reference alone; the paper does not say how many it scored."
    return f"{reason} Protocol: {table.rows[0].signature_alone}."


def protocol_cells(table: ScoreTable) -> Cells:
    """Return CIDEr of the same captions under each protocol."""
    names = list(table.rows[0].protocols.signatures)
    return ["Model", *names], _group_rows(table.rows, partial(_protocol_scores, names=names))


def _protocol_scores(row: ScoreRow, names: Sequence[str]) -> list[str]:
    return [_format_value(row.protocols.mean, row.protocols.deviation, name) for name in names]


def protocol_note(table: ScoreTable) -> str:
    """Say what the protocols are, and name their signatures."""
    signatures = "; ".join(f"{name}: {text}" for name, text in table.rows[0].protocols.signatures.items())
    return (
        "CIDEr of the same captions under protocols that others used. Without PTB tokens, strings are compared as they "
        "are written; fewer images, drawn with a seed, and fewer references have other document frequencies. A "
        f"published score can be compared with the column of its protocol only. {_published(table)}{signatures}."
    )


def _published(table: ScoreTable) -> str:
    """Say which protocols the published scores of PaliGemma on RISC have; "" for other data."""
    peers = (
        "Two other trainings of PaliGemma-3B on RISC report 220.7 (no PTB tokens, 500 images of a random split) and "
        "155.3 (no PTB tokens, one random reference; all images of RISC's test split). "
    )
    return peers if table.profile == "paper" else ""


def _group_rows(rows: Sequence[ScoreRow], cells: Callable[[ScoreRow], list[str]]) -> list[list[str]]:
    lines: list[list[str]] = []
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append([group])
        lines.append([row.label, *cells(row)])
    return lines


def _format_score(row: ScoreRow, key: str, factor: float = 1.0) -> str:
    return _format_value(row.scores, row.deviation, key, factor)


def _format_value(
    scores: Mapping[str, float], deviations: Mapping[str, float] | None, key: str, factor: float = 1.0
) -> str:
    value, deviation = scores.get(key), (deviations or {}).get(key)
    if value is None:
        return NONE
    return f"{factor * value:.1f}" + (f" ± {factor * deviation:.1f}" if deviation is not None else "")


def format_count(parameters: int | None) -> str:
    """Format a number of parameters: three digits of millions, exact below a million."""
    if parameters is None:
        return NONE
    return f"{parameters / 1e6:.3g}M" if parameters >= 1_000_000 else f"{parameters:,}"


def format_files(table: ScoreTable) -> dict[str, str]:
    """Return all text forms of the table by file name."""
    content = TypeAdapter(ScoreTable).dump_python(table) | {"notes": [*table_notes(table), caption_1_note(table)]}
    return {
        "table-2.md": format_tables(table),
        "table-2.csv": format_full_csv(table),
        "table-2.json": json.dumps(content, indent=1, ensure_ascii=False) + "\n",
        "scores.csv": format_scores_csv(table),
    }


def format_tables(table: ScoreTable) -> str:
    """Return the tables as aligned Markdown, each with its notes."""
    first = [*_markdown_lines(table_cells(table)), "", *(f"{note}\n" for note in table_notes(table))]
    second = [*_markdown_lines(caption_1_cells(table)), "", f"{caption_1_note(table)}\n"]
    if cells := source_cells(table):
        second += ["## By source\n", *_markdown_lines(cells), "", f"{source_note(table)}\n"]
    second += ["## Under other protocols\n", *_markdown_lines(protocol_cells(table)), "", f"{protocol_note(table)}\n"]
    return "\n".join([*first, "## Against `caption_1` alone\n", *second])


def format_markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that is not aligned."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *lines))


def _markdown_lines(cells: Cells) -> list[str]:
    header, rows = cells
    rows = [[f"**{row[0]}**"] + [""] * (len(header) - 1) if len(row) == 1 else row for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = [f"{'-' * widths[0]}-", *(f"{'-' * width}:" for width in widths[1:])]
    padded = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in (header, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    return [lines[0], f"|-{'|-'.join(rule)}|", *lines[1:]]


def format_full_csv(table: ScoreTable) -> str:
    """Return both tables as one CSV, unrounded, with seeds, images and both protocols on each line."""
    scores = sorted({key for row in table.rows for key, value in row.scores.items() if isinstance(value, int | float)})
    records = [_csv_record(row, table.images, scores) for row in table.rows]
    file = io.StringIO()
    writer = csv.DictWriter(file, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def _csv_record(row: ScoreRow, images: int, scores: Sequence[str]) -> dict[str, str | float | None]:
    deviation = row.deviation or {}
    record: dict[str, str | float | None] = {"row": row.key, "name": row.name, "group": row.group}
    record |= {key: row.scores.get(key) for key in scores}
    record |= {f"{key} deviation": deviation.get(key) for key in scores}
    record |= {"CIDEr low": row.interval[0], "CIDEr high": row.interval[1], "differs": row.letters}
    record |= {"trainable_parameters": row.parameters, "share": row.share}
    record |= {"paper_CIDEr": row.paper.CIDEr if row.paper else None, "seeds": row.seeds, "images": images}
    return record | {"protocol": row.signature, f"protocol{CAPTION_1}": row.signature_alone}


def format_scores_csv(table: ScoreTable) -> str:
    """Return the main scores, one line for each row, for an interactive plot."""
    lines = [",".join(["row", *SCORES])]
    lines += [",".join([row.key, *(f"{row.scores[key]:.4f}" for key in SCORES)]) for row in table.rows]
    return "\n".join(lines) + "\n"
