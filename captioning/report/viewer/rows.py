"""Read the rows that the page can compare: every run's captions, tokens and CIDEr, and the first references'."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from captioning.base.errors import UserError
from captioning.data.outputs import Output
from captioning.evaluation.predictions import HUMAN, Run, read_predictions, yardstick_run
from captioning.metrics.ptb import tokenize
from captioning.report.viewer.marks import Tokens
from captioning.runtime.paths import IMAGE_SCORES, PREDICTIONS

References = Mapping[str, Sequence[str]]  # by image, as written


class NamedRow(Output):
    key: str
    name: str


class NamedRows(Output):
    """The rows of plots/table-2.json, in their order."""

    rows: tuple[NamedRow, ...]


@dataclass(frozen=True)
class ShownRow:
    """A run: its key in links, its name, and its captions, tokens and CIDEr (times 100) by image."""

    key: str
    name: str
    captions: Mapping[str, str]
    tokens: Mapping[str, Tokens]
    cider: Mapping[str, float]
    is_reference: bool = False  # each caption is its image's first reference, which it is not compared with


def read_rows(
    runs: Sequence[Run], names: Mapping[str, str], captioned: Sequence[str], references: References
) -> list[ShownRow]:
    """Read the captions of `references`' images in each of `runs`, and add the row of first references, if all images
    have a second one.

    `names`: of the table's rows, in their order. `captioned`: all ids of the predictions' files.
    """
    if all(len(captions) > 1 for captions in references.values()):
        runs = [*runs, yardstick_run(HUMAN)]
    runs = sorted(runs, key=lambda run: [*names].index(run.row))
    cider = read_cider(IMAGE_SCORES, [run.row for run in runs], references)
    captions = [_read_captions(run, captioned, references) for run in runs]
    tokens = iter(tokenize([caption for by_id in captions for caption in by_id.values()]))
    counts = Counter(run.row for run in runs)
    return [
        ShownRow(
            key=run.name,
            name=names[run.row] + (f", seed {run.seed}" if counts[run.row] > 1 else ""),
            captions=by_id,
            tokens={id_: next(tokens).split() for id_ in by_id},
            cider=cider[run.row, run.seed],
            is_reference=run.row == HUMAN,
        )
        for run, by_id in zip(runs, captions, strict=True)
    ]


def _read_captions(run: Run, captioned: Sequence[str], references: References) -> dict[str, str]:
    if run.row == HUMAN:
        return {id_: captions[0] for id_, captions in references.items()}
    predictions = read_predictions(PREDICTIONS / f"{run.name}.jsonl", captioned)
    return {record.id: record.caption for record in predictions if record.id in references}


def read_cider(path: Path, rows: Collection[str], ids: Collection[str]) -> dict[tuple[str, int], dict[str, float]]:
    """Read CIDEr of each image by row and seed. Raises `UserError` if one of `rows` lacks an image."""
    scores: dict[tuple[str, int], dict[str, float]] = {}
    columns = ["row", "seed", "id", "CIDEr"]
    for record in pq.read_table(path, columns=columns, filters=[("row", "in", list(rows))]).to_pylist():
        scores.setdefault((record["row"], record["seed"]), {})[record["id"]] = record["CIDEr"]
    for (row, _), by_id in scores.items():
        if missing := [id_ for id_ in ids if id_ not in by_id]:
            raise UserError(f"{path}: no CIDEr of {row} for {missing[0]}; run the stage evaluate again")
    return {run: {id_: by_id[id_] for id_ in ids} for run, by_id in scores.items()}
