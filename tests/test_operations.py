"""The SLURM script, the notebook's cells and the settings that docs/operations.md prints are right as far as a shell,
Python and params.yaml can tell."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from captioning.base.yaml_file import read_yaml
from captioning.params.load import load_params

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
SETTING = re.compile(r"-S ['\"]?([\w.-]+)=([^\s'`]+)")


def code(heading: str) -> list[str]:
    """Return the lines of the first code block below a heading."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    block = re.search(r"(?:^    .*\n|^\n(?=    ))+", section, re.MULTILINE)
    assert block, heading
    return [line.removeprefix("    ") for line in block[0].strip("\n").splitlines()]


def check_shell(script: str) -> None:
    result = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, timeout=10)
    assert result.returncode == 0, result.stderr


def test_the_slurm_script_starts_the_profile_in_its_project(tmp_path: Path) -> None:
    """A `dvc` that prints its words stands for DVC."""
    lines = code("SLURM")
    assert lines[0] == "#!/bin/bash" and sum(line.startswith("#SBATCH --") for line in lines) == 5
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").write_text(f'export PATH="{tmp_path}/.venv/bin:$PATH"\n')
    (tmp_path / ".venv/bin/dvc").write_text('#!/bin/bash\necho "$PWD" "$HF_HUB_OFFLINE" "$@"\n')
    (tmp_path / ".venv/bin/dvc").chmod(0o755)
    script = tmp_path / "captions.slurm"
    script.write_text("\n".join(lines) + "\n")
    environment = {"PATH": "/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(tmp_path)}
    output = subprocess.run(["bash", script], cwd="/", env=environment, text=True, capture_output=True, timeout=10)
    assert output.stdout == f"{tmp_path} 1 exp run -S profile=paper\n", output.stderr
    (tmp_path / ".venv/bin/activate").unlink()
    assert subprocess.run(["bash", script], cwd="/", env=environment, capture_output=True, timeout=10).returncode


def test_the_notebooks_cells_are_shell_magic_or_python() -> None:
    lines = code("A notebook")
    kinds = {"!": check_shell, "%": lambda line: pytest.fail(line) if not line.startswith("cd ") else None}
    for line in lines:
        check = kinds.get(line[0])
        check(line[1:]) if check else compile(line, "cell", "exec")
    assert sum(line.startswith("!dvc") for line in lines) >= 4


def test_each_setting_in_the_document_is_one_of_params_yaml() -> None:
    settings = {key for key, _ in SETTING.findall(TEXT)}
    assert {"profile", "profiles.paper.machine.compute", "launch.processes"} <= settings
    raw: Any = read_yaml(ROOT / "params.yaml")
    for key in settings:
        value = raw
        for part in key.split("."):
            assert part in value, f"-S {key}"
            value = value[part]
    assert load_params(ROOT / "params.yaml").profiles["paper"].machine.compute == "bfloat16"
