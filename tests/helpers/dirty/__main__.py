"""`python -m tests.helpers.dirty > docs/dirty-input.md`: the corpus as a page."""

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

What becomes of input that is not as it should be. Written by `python -m tests.helpers.dirty`;
`tests/data/readers/test_dirty_input.py` runs every line of it.

* **as it is**: taken, no byte changed.
* **repaired**: taken, by the rule that is named; `data/captions/manifest.json` counts how often it fired.
* **set aside**: not taken, the run goes on; `data/captions/set_aside.csv` lists it with the line and this reason.
* **refused**: one `error:` with file, line or key, value and remedy, before anything is trained.

Nothing is unpickled, no tag of YAML makes an object, no code beside a checkpoint is run. What errors and tables quote
is printable: control characters and marks of direction stand there as escapes. In `set_aside.csv` and in `--format csv`
a cell that a spreadsheet would run as a formula (first character `=`, `+`, `-` or `@`) stands behind an apostrophe;
captions in the data and in JSON stay as they are.

A caption has at most 200 words and 2000 characters (RISC's longest has 51 words): the longest one sets what a training
step needs. A picture in the folder that no row names is listed with line 0.
"""


def page() -> str:
    """Markdown: a table a kind, its cases by outcome."""
    parts = [HEAD, _counts()]
    for kind, cases in KINDS.items():
        rows = [f"| {_cell(one.name)} | {one.outcome} | {_told(one)} |" for outcome in OUTCOMES for one in cases
                if one.outcome == outcome]  # fmt: skip
        parts.append(
            "\n".join([f"## {kind}", "", "| input | outcome | told, among other words |", "|---|---|---|", *rows, ""])
        )
    return "\n".join(parts)


def _counts() -> str:
    rows = []
    for kind, cases in KINDS.items():
        counted = Counter(one.outcome for one in cases)
        rows.append(f"| {kind} | {' | '.join(str(counted[outcome]) for outcome in OUTCOMES)} | {len(cases)} |")
    return "\n".join([f"| | {' | '.join(OUTCOMES)} | all |", "|---|---|---|---|---|---|", *rows, ""])


def _told(case: Case) -> str:
    text = _cell(case.told.removeprefix("fault(s)\n  ").removeprefix(": ").strip())
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return escape(text).replace("|", "\\|").replace("`", "'")


if __name__ == "__main__":
    print(page(), end="")
