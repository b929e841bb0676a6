"""docs/planning.md is what the command writes of the committed parameters."""

from pathlib import Path

from benchmarks.planning import committed, page
from captioning.params import load_params

ROOT = Path(__file__).parent.parent


def test_the_page_is_what_the_command_writes() -> None:
    written = page(load_params(ROOT / "params.yaml"), committed())
    assert (ROOT / "docs/planning.md").read_text(encoding="utf-8") == written, (
        "python -m benchmarks.planning > docs/planning.md"
    )
