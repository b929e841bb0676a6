"""Read the predictions of every run, and summarize scores over seeds.

A row is a name in Table II: `zero-shot-<checkpoint>`, a variant, `scst-<start>-<baseline>`, or a yardstick. The
parameters decide which runs are scored, not the files in a folder: the old file of a removed variant has no effect.
"""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from captioning.base.errors import UserError
from captioning.base.quoting import escape, shorten
from captioning.evaluation.outputs import Measures, Summary

CAPTION_1 = " caption_1"  # at the end of the name of a score against each image's first reference alone
NO_SEED = 0  # of a row without training
HUMAN = "human-caption"  # the yardstick row of first references
GENERATE_AGAIN = "run its generate stage again"


class Prediction(BaseModel):
    """One line of a file of predictions."""

    model_config = ConfigDict(frozen=True, strict=True)

    id: str
    caption: str
    tokens: int  # with `<eos>`
    ended: bool


@dataclass(frozen=True)
class Run:
    """One file of predictions; `zero_shot` is the row that its gains are measured against."""

    row: str
    kind: str  # zero-shot | adapted | scst | yardstick
    seed: int
    zero_shot: str | None

    @property
    def name(self) -> str:
        return self.row if self.kind in ("zero-shot", "yardstick") else f"{self.row}-{self.seed}"


def yardstick_run(row: str) -> Run:
    """Return the run of a row that no model captioned."""
    return Run(row, "yardstick", NO_SEED, None)


def expected_runs(
    zero_shot: Sequence[str], checkpoints: Mapping[str, str], starts: Mapping[str, str], seeds: Sequence[int]
) -> list[Run]:
    """Return every run in the order of the table.

    `checkpoints`: the checkpoint of each trained variant. `starts`: the variant that each row of SCST starts from.
    """
    rows = {name: f"zero-shot-{name}" for name in zero_shot}
    origins = {start: rows.get(name) for start, name in checkpoints.items()}
    return [
        *(Run(row, "zero-shot", NO_SEED, None) for row in rows.values()),
        *(Run(variant, "adapted", seed, row) for variant, row in origins.items() for seed in seeds),
        *(Run(row, "scst", seed, origins[start]) for row, start in starts.items() for seed in seeds),
    ]


def read_predictions(path: Path, ids: Sequence[str]) -> list[Prediction]:
    """Return the predictions in the order of `ids`. Raises `UserError` if the file does not hold one for each."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {escape(str(error))}; {GENERATE_AGAIN}") from None
    records = [_parse_record(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line]
    predictions = {record.id: record for record in records}
    counts, expected = Counter(record.id for record in records), Counter(ids)
    if wrong := sorted((counts - expected) + (expected - counts)):
        raise UserError(f"{path}: not one prediction for each test image ({shorten(wrong[0])}); {GENERATE_AGAIN}")
    return [predictions[id_] for id_ in ids]


def _parse_record(line: str, location: str) -> Prediction:
    try:
        return Prediction.model_validate_json(line)
    except ValidationError:
        fields = ", ".join(Prediction.model_fields)
        raise UserError(f"{location}: {shorten(line)} is not JSON with {fields}; {GENERATE_AGAIN}") from None


def summarize_seeds(seeds: Mapping[str, Measures]) -> Summary:
    """Compute the means and deviations of `seeds`, which all have the same measures."""
    names = list(next(iter(seeds.values())))
    values = {name: [scores[name] for scores in seeds.values()] for name in names}
    deviation = {name: statistics.stdev(numbers) for name, numbers in values.items()} if len(seeds) > 1 else None
    mean = {name: statistics.fmean(numbers) for name, numbers in values.items()}
    return Summary(seeds=seeds, mean=mean, deviation=deviation)
