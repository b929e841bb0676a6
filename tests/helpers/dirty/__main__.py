"""`python -m tests.helpers.dirty`: print each case of dirty input with its outcome.

`python -m tests.helpers.dirty --summary > docs/dirty-input.md` writes the counts alone.
"""

import sys
from collections import Counter

from captioning.base.quoting import escape
from tests.helpers.dirty import OUTCOMES, Case, captioned, images, models, parameters, tables

KINDS: dict[str, list[Case]] = {
    "Images": images.CASES,
    "captions.csv and its folder": tables.FOLDERS + tables.TABLES,
    "params.yaml": parameters.CASES,
    "Predictions": captioned.CASES,
    "Adapters": models.ADAPTERS,
    "Checkpoints": models.CHECKPOINTS,
}
HEAD = """# Dirty input

Each kind of dirty input has an outcome. `python -m tests.helpers.dirty` prints the cases with their messages, and
`tests/data/readers/test_dirty_input.py` runs them.

* **as it is**: accepted, no byte changed.
* **repaired**: accepted, changed by a rule; `data/captions/manifest.json` counts how often each rule was used.
* **set aside**: left out, and the run goes on; `data/captions/set_aside.csv` lists it with its line and the reason, and
  `download` and the page say how many for each reason. If it is more than 5 % of the rows, of the captions, or of the
  images, the run ends there, unless `data.set_aside` is `allow`.
* **refused**: one `error:` with file, line or key, value and remedy, before any training.

Nothing is unpickled, no YAML tag makes an object, no code in a checkpoint is run. Errors and tables quote input in
printable form: control characters and direction marks are escaped. In `set_aside.csv` and in `--format csv`, a cell
that a spreadsheet would run as a formula (first character `=`, `+`, `-` or `@`) gets an apostrophe in front; captions
in the data and in JSON stay as they are.

A caption has at most 200 words and 2000 characters (RISC's longest has 51 words), since the longest one decides how
much memory a training step needs. An image in the folder that no row names is listed with line 0. An empty cell
is no caption; hidden files and those that systems leave behind (`._a.jpg`, `.DS_Store`, `Thumbs.db`, `__MACOSX`) are no
images.
"""


def summary() -> str:
    """Return docs/dirty-input.md: the number of cases by kind and outcome."""
    rows = [f"| | {' | '.join(OUTCOMES)} | all |", "|---|---|---|---|---|---|"]
    for kind, cases in KINDS.items():
        counts = Counter(case.outcome for case in cases)
        rows.append(f"| {kind} | {' | '.join(str(counts[outcome]) for outcome in OUTCOMES)} | {len(cases)} |")
    return "\n".join([HEAD, *rows, ""])


def full_list() -> str:
    """Return a Markdown table of each kind, its cases by outcome."""
    lines = []
    for kind, cases in KINDS.items():
        lines += [f"## {kind}", "", "| input | outcome | words of the message |", "|---|---|---|"]
        for case in sorted(cases, key=lambda case: OUTCOMES.index(case.outcome)):
            message = case.message.strip(": ")
            lines.append(f"| {_cell(case.name)} | {case.outcome} | {f'`{_cell(message)}`' if message else ''} |")
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return escape(text).replace("|", "\\|").replace("`", "'")


if __name__ == "__main__":
    print(summary() if "--summary" in sys.argv else full_list(), end="")
