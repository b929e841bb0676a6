"""params.yaml sets limits before a library is loaded; a malformed file sets none."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.copies import set_values
from captioning.base.instructions import AVX2, THREADS, environment_variables, limit_instructions

ROOT = Path(__file__).parents[2]
PROBE = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), __name__)\n"


def test_limits_follow_the_machine_section() -> None:
    assert environment_variables({"threads": 3, "instructions": "native"}) == dict.fromkeys(THREADS, "3")
    assert environment_variables({"threads": 1, "instructions": "avx2"}) == dict.fromkeys(THREADS, "1") | AVX2


@pytest.mark.parametrize("text", ["", "profile: small", "profiles: [", "profile: a\nprofiles: {b: {machine: {}}}"])
def test_a_malformed_file_sets_nothing(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    limit_instructions(tmp_path / "params.yaml")
    limit_instructions(tmp_path / "none.yaml")
    assert not any(name in os.environ for name in THREADS)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has these instructions")
@pytest.mark.parametrize("instructions", ["native", "avx2"])
def test_a_stage_is_limited_before_torch_is_loaded(instructions: str, tmp_path: Path) -> None:
    for name in ("captioning", "stages"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("params.yaml", "dvc.yaml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    machine = "profiles.miniature.machine"
    set_values(tmp_path / "params.yaml", {f"{machine}.threads": 1, f"{machine}.instructions": instructions})
    (tmp_path / "stages/probe.py").write_text(PROBE)
    environment = {name: value for name, value in os.environ.items() if name not in {*THREADS, *AVX2}}
    process = subprocess.run(
        [sys.executable, "-m", "stages.probe"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    capability, *others = process.stdout.split()
    assert others == ["1", "__main__"]
    assert capability == "AVX2" or instructions == "native"
