"""Rows of the results: which there must be, their predictions read and checked, their seeds summed up.

A row is a name in Table II: `zero-shot-<checkpoint>`, a variant, `scst-<start>-<baseline>`, or a yardstick.
What there must be follows from the parameters, never from what lies in a folder, so that a removed variant's old file
is not scored.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from captioning.base.errors import UserError
from captioning.base.quoting import escape, join_faults, shorten

ALONE = " caption_1"  # behind the name of a score against each image's first reference alone
NO_SEED = 0  # of a row that nothing was trained for
AGAIN = "run its generate stage again"
SHOWN = 3  # ids too few or too many that are named
KEYS = {"id": str, "caption": str, "tokens": int, "ended": bool}


@dataclass(frozen=True)
class Run:
    """One file of predictions: its row, its kind, its seed, and the row it is compared with for gains."""

    row: str
    kind: str  # zero-shot | adapted | scst
    seed: int
    zero_shot: str | None

    @property
    def name(self) -> str:
        return self.row if self.kind == "zero-shot" else f"{self.row}-{self.seed}"


def expected_runs(
    zero_shot: Sequence[str], checkpoints: Mapping[str, str], refined: Mapping[str, str], seeds: Sequence[int]
) -> list[Run]:  # fmt: skip
    """Every run in the order of the table.

    `checkpoints`: trained variant to its checkpoint's name; `refined`: SCST's row to the variant it starts from.
    """

    def unadapted(checkpoint: str) -> str | None:
        return f"zero-shot-{checkpoint}" if checkpoint in zero_shot else None

    return [
        *(Run(f"zero-shot-{name}", "zero-shot", NO_SEED, None) for name in zero_shot),
        *(Run(variant, "adapted", seed, unadapted(name)) for variant, name in checkpoints.items() for seed in seeds),
        *(Run(row, "scst", seed, unadapted(checkpoints[start])) for row, start in refined.items() for seed in seeds),
    ]


def read_predictions(path: Path, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The predictions in the order of `ids`. Raises `UserError`, every fault at once, where they are not just those."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: {escape(str(error))}; {AGAIN}") from None
    found: dict[str, dict[str, Any]] = {}
    faults = []
    for number, line in enumerate(lines, start=1):
        if line:
            record, fault = _record(line)
            if fault is None and record["id"] in found:
                fault = f"{shorten(record['id'])} is there twice"
            if fault is None:
                found[record["id"]] = record
            else:
                faults.append(f"{path}:{number}: {fault}; {AGAIN}")
    faults += [f"{path}: no prediction for {id_!r}; {AGAIN}" for id_ in ids if id_ not in found][:SHOWN]
    faults += [f"{path}: {shorten(id_)} is no test image; {AGAIN}" for id_ in sorted(found.keys() - set(ids))][:SHOWN]
    if faults:
        raise UserError(join_faults(faults))
    return [found[id_] for id_ in ids]


def _record(line: str) -> tuple[dict[str, Any], str | None]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}, f"{shorten(line)} is no JSON"
    if not isinstance(record, dict) or any(type(record.get(key)) is not kind for key, kind in KEYS.items()):
        return {}, f"{shorten(line)} lacks one of {', '.join(KEYS)}"
    if record["tokens"] < 0 or _halved(record):
        return {}, f"{shorten(line)} holds a negative length, or half a character"
    return record, None


def _halved(record: dict[str, Any]) -> bool:
    """Whether a text holds half of a surrogate pair, which no file can."""
    return any("\ud800" <= letter <= "\udfff" for letter in record["id"] + record["caption"])


def sum_up(seeds: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """`{"seeds", "mean", "deviation"}` with sample standard deviations, None with one seed."""
    names = list(next(iter(seeds.values())))
    values = {name: [scores[name] for scores in seeds.values()] for name in names}
    deviation = {name: statistics.stdev(of) for name, of in values.items()} if len(seeds) > 1 else None
    mean = {name: statistics.fmean(of) for name, of in values.items()}
    return {"seeds": dict(seeds), "mean": mean, "deviation": deviation}
