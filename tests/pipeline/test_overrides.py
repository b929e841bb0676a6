"""A value that params.yaml or DVC refuses changes nothing; tests/pipeline/test_side_by_side.py sets others."""

from pathlib import Path

import pytest

from pipeline import overrides
from tests.helpers.project_copy import ROOT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "SET: it is empty; name keys of params.yaml, as in make experiment SET='lora.rank=4'"),
        (["lora.rank=0"], "params.yaml: 1 fault(s)\n  lora.rank: "),
        (["lora.rnak=4"], "SET: 'lora.rnak=4': Could not override 'lora.rnak'"),
        (["lora.rank"], "SET: 'lora.rank': "),
        (["lora.rank=4", "scst.baselines=[greedily]"], "params.yaml: 1 fault(s)\n  scst.baselines.0: "),
    ],
)
def test_a_refused_value_changes_nothing(
    changes: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    before = (ROOT / "params.yaml").read_bytes()
    Path("params.yaml").write_bytes(before)
    assert overrides.main(changes) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert Path("params.yaml").read_bytes() == before
