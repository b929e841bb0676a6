"""A value that params.yaml or DVC refuses changes nothing; tests/pipeline/test_side_by_side.py sets others."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from captioning.params.load import load_params
from pipeline import overrides
from tests.helpers.project_copy import ROOT


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" ", "SET: it names no value; write SET="),
        ("lora.rank=0", "params.yaml: 1 fault(s)\n  lora.rank: "),
        ("lora.rnak=4", "SET: lora.rnak=4: Could not override 'lora.rnak'"),
        ("lora.rank", "SET: lora.rank: "),
        ("lora.rank='4", "SET: lora.rank='4: No closing quotation; write SET="),
        ("lora.rank=4 seeds=1,2", "SET: seeds=1,2 has several values; write a list in brackets, as in seeds=[1,2]"),
        ("lora.rank=4 scst.baselines=[greedily]", "params.yaml: 1 fault(s)\n  scst.baselines.0: "),
    ],
)
def test_a_refused_value_changes_nothing(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("params.yaml").read_bytes()
    assert overrides.main(text) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert Path("params.yaml").read_bytes() == before


def test_a_damaged_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("params.yaml").write_text("lora: {rank: 4\n", encoding="utf-8")
    assert overrides.main("lora.rank=4") == 1
    error = capsys.readouterr().err
    assert "params.yaml" in error and "Traceback" not in error


def test_a_value_with_spaces_is_quoted() -> None:
    assert overrides.main("lora.rank=4 'finetune.prompt=describe en' 'seeds=[1, 2]'") == 0
    params = load_params(Path("params.yaml"))
    assert (params.lora.rank, params.finetune.prompt, params.seeds) == (4, "describe en", [1, 2])


@pytest.mark.parametrize("text", ["", "lora.rank=4 'finetune.prompt=describe en; or not'"])
def test_make_runs_the_commands_of_an_experiment(text: str, tmp_path: Path) -> None:
    """Programs that log their words stand in for Python and DVC."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("requirements.txt", ".venv/installed"):
        (tmp_path / name).touch()
    for name in ("python", "dvc"):
        (programs / name).write_text(f'#!/bin/sh\nfor word in {name} "$@"; do echo "$word" >> log; done\n')
        (programs / name).chmod(stat.S_IRWXU)
    subprocess.run(["make", "experiment", *([f"SET={text}"] if text else [])], cwd=tmp_path, check=True)
    first = ["python", "-m", "pipeline.overrides", text] if text else []
    rest = ["python", "-m", "stages.check", "python", "-m", "pipeline.jobs", "--jobs", "auto", "dvc", "exp", "run"]
    assert (tmp_path / "log").read_text(encoding="utf-8").splitlines() == first + rest
