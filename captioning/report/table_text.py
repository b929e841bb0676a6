"""Table II in words: its cells, its notes, and its forms as Markdown, CSV and JSON.

A second table holds the scores against `caption_1` alone, since the paper does not say how many references it scored.
"""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from captioning.evaluation.predictions import CAPTION_1
from captioning.report.table import Row, Table

SCORES = ("CIDEr", "BLEU-4", "METEOR", "ROUGE-L", "length")
SHARES = {"ended": "ended %", "scene": "scene %", "colour": "colour %"}  # 0 to 1 in the scores, percent in the table
NONE = "–"
Cells = tuple[list[str], list[list[str]]]  # header and rows; a row of one text is a group's title


def notes(table: Table) -> list[str]:
    """What a reader must know to read the numbers."""
    seeds = (
        "; where rows have several seeds, t tests over them must reject too, each pair alone"
        if len(table.seeds) > 1
        else ""
    )
    return [
        f"Protocol: {table.rows[0].signature}; {table.images:,} test images. CIDEr, BLEU, METEOR and ROUGE-L times "
        "100; length in words; share: trainable of all parameters.",
        f"95 % interval: of CIDEr, paired bootstrap over test images with {table.resamples:,} resamples. Differs: rows "
        f"that share a letter are not told apart in CIDEr, rows that share none are, at 5 % for all pairs together "
        f"(max-T{seeds}). A row without a letter is scored against other references.",
        noise(table.seeds),
    ]


def noise(seeds: Sequence[int]) -> str:
    """What may be concluded from as many seeds."""
    if len(seeds) == 1:
        return ("One seed a variant: run-to-run noise is not measured. Letters and intervals speak of these captions; "
                "no claim that one recipe beats another stands.")  # fmt: skip
    return (f"Mean ± standard deviation over {len(seeds)} seeds; a difference within these deviations is noise. Rows "
            "without ± have no seed.")  # fmt: skip


def display(table: Table) -> Cells:
    """Table II as texts. Columns without any value are left out."""
    shares = {key: title for key, title in SHARES.items() if any(key in row.scores for row in table.rows)}
    beside = any(row.paper for row in table.rows)
    header = ["Model", "CIDEr", "95 % interval", "differs", *(["CIDEr, paper"] if beside else []), *SCORES[1:],
              *shares.values(), "trainable", *(["trainable, paper"] if beside else []), "share %",
              *(["share %, paper"] if beside else [])]  # fmt: skip

    def cells(row: Row) -> list[str]:
        paper = row.paper
        return [
            _score(row, "CIDEr"), f"{row.interval[0]:.1f} to {row.interval[1]:.1f}", row.letters or NONE,
            *([f"{paper.CIDEr:.1f}" if paper else NONE] if beside else []),
            *(_score(row, key) for key in SCORES[1:]), *(_score(row, key, 100) for key in shares),
            count(row.parameters), *([(paper and paper.parameters) or NONE] if beside else []),
            NONE if row.share is None else f"{row.share:.3g}", *([(paper and paper.share) or NONE] if beside else []),
        ]  # fmt: skip

    return header, _grouped(table.rows, cells)


def display_alone(table: Table) -> Cells:
    """The scores against `caption_1` alone, of the rows that have them."""
    names = SCORES[:-1]
    rows = [row for row in table.rows if row.signature_alone]
    return ["Model", *names], _grouped(rows, lambda row: [_score(row, name + CAPTION_1) for name in names])


def note_alone(table: Table) -> str:
    """The protocol of the scores against `caption_1` alone."""
    return (f"Against each image's first reference alone; the paper does not say how many it scored. Protocol: "
            f"{table.rows[0].signature_alone}.")  # fmt: skip


def _grouped(rows: Sequence[Row], cells: Callable[[Row], list[str]]) -> list[list[str]]:
    lines: list[list[str]] = []
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines.append([group])
        lines.append([row.label, *cells(row)])
    return lines


def _score(row: Row, key: str, times: float = 1.0) -> str:
    value, deviation = row.scores.get(key), (row.deviation or {}).get(key)
    if value is None:
        return NONE
    return f"{times * value:.1f}" + (f" ± {times * deviation:.1f}" if deviation is not None else "")


def count(parameters: int | None) -> str:
    """A number of parameters: three digits of millions, exact below a million."""
    if parameters is None:
        return NONE
    return f"{parameters / 1e6:.3g}M" if parameters >= 1_000_000 else f"{parameters:,}"


def files(table: Table) -> dict[str, str]:
    """Every form of the table that is text, by file name."""
    return {"table-2.md": markdown(table), "table-2.csv": csv_text(table), "table-2.json": json_text(table),
            "scores.csv": scores_csv(table)}  # fmt: skip


def markdown(table: Table) -> str:
    """Both tables as aligned Markdown, a title row before each group, their notes after them."""
    first = [*_markdown(display(table)), "", *(f"{note}\n" for note in notes(table))]
    return "\n".join([*first, "## Against `caption_1` alone\n", *_markdown(display_alone(table)), "",
                      f"{note_alone(table)}\n"])  # fmt: skip


def _markdown(cells: Cells) -> list[str]:
    header, rows = cells
    full = [header, *([f"**{row[0]}**"] + [""] * (len(header) - 1) if len(row) == 1 else row for row in rows)]
    widths = [max(len(row[k]) for row in full) for k in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in
                               enumerate(zip(row, widths, strict=True))) + " |" for row in full]  # fmt: skip
    lines.insert(1, "|" + "|".join("-" * (w + 1) + ("-" if k == 0 else ":") for k, w in enumerate(widths)) + "|")
    return lines


def csv_text(table: Table) -> str:
    """Both tables as one CSV, unrounded; each line carries the number of seeds and images, and both protocols."""
    keys = sorted({key for row in table.rows for key, value in row.scores.items() if isinstance(value, int | float)})
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "name", "group", *keys, *(f"{key} deviation" for key in keys), "CIDEr low", "CIDEr high",
                     "differs", "trainable_parameters", "share", "paper_CIDEr", "seeds", "images", "protocol",
                     f"protocol{CAPTION_1}"])  # fmt: skip
    for row in table.rows:
        deviation = row.deviation or {}
        writer.writerow([
            row.key, row.name, row.group, *(row.scores.get(key) for key in keys), *(deviation.get(key) for key in keys),
            *row.interval, row.letters, row.parameters, row.share, row.paper and row.paper.CIDEr, row.seeds,
            table.images, row.signature, row.signature_alone,
        ])  # fmt: skip
    return file.getvalue()


def scores_csv(table: Table) -> str:
    """The main scores, a line a row, for an interactive plot."""
    lines = [",".join(["row", *SCORES])]
    lines += [",".join([row.key, *(f"{row.scores[key]:.4f}" for key in SCORES)]) for row in table.rows]
    return "\n".join(lines) + "\n"


def json_text(table: Table) -> str:
    """Both tables as JSON, unrounded."""
    written = {**asdict(table), "notes": [*notes(table), note_alone(table)]}
    return json.dumps(written, indent=1, ensure_ascii=False) + "\n"
