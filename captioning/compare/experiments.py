"""List CIDEr of each row in each experiment, a line for a row.

`dvc exp show` has a column for a row, so that a terminal shows a few rows of them at a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dvc.exceptions import NotDvcRepoError
from dvc.repo import Repo

from captioning.base.errors import UserError
from captioning.compare.revisions import WORKSPACE
from captioning.compare.text import WIDTH
from captioning.report.table_text import NONE, Cells
from captioning.runtime.paths import CIDER

GAP = 2  # spaces between columns
Ciders = dict[str, Mapping[str, float]]  # by experiment, then by row


def read_experiments() -> Ciders:
    """Return CIDEr of the workspace, of HEAD and of each experiment that started from it. Raises `UserError`."""
    try:
        with Repo() as repo:
            return dict(_read_states(repo.experiments.show()))
    except NotDvcRepoError:
        raise UserError("this folder is no DVC repository; change to the project's folder") from None


def _read_states(states: Any) -> Iterator[tuple[str, Mapping[str, float]]]:
    for base in states:
        experiments = [experiment.revs[0] for experiment in base.experiments or []]
        for state in (base, *experiments):
            metrics = state.data.metrics if state.data else {}
            yield (
                state.name or (state.rev if state.rev == WORKSPACE else state.rev[:7]),
                metrics.get(CIDER.as_posix(), {}).get("data") or {},
            )


def experiment_tables(ciders: Ciders, width: int = WIDTH) -> list[Cells]:
    """Return tables of at most `width` characters, each with as many experiments as fit."""
    rows = list(dict.fromkeys(row for scores in ciders.values() for row in scores))
    room = width - max(map(len, ["CIDEr", *rows]))
    tables: list[list[str]] = [[]]
    used = 0
    for name in ciders:
        used += GAP + max(len(name), len("100.0"))
        if used > room and tables[-1]:
            tables.append([])
            used = GAP + len(name)
        tables[-1].append(name)
    return [(["CIDEr", *names], [_line(row, [ciders[name] for name in names]) for row in rows]) for names in tables]


def _line(row: str, experiments: Sequence[Mapping[str, float]]) -> list[str]:
    return [row, *(f"{scores[row]:.1f}" if row in scores else NONE for scores in experiments)]
