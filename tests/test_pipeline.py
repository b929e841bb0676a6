"""dvc.yaml against the code: a stage depends on exactly the library files it runs, and writes what it says."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
NOT_IN_OUTPUTS = {
    "captioning/params.py",
    "captioning/param_faults.py",
    "captioning/param_sections.py",
    "captioning/plain_yaml.py",
    "captioning/runlog.py",
    "captioning/secrets.py",
    "captioning/tracking.py",
    "captioning/memory.py",
    "captioning/scst_memory.py",
    "captioning/activations.py",
    "captioning/disk.py",
    "captioning/sizes.py",
    "captioning/training_disk.py",
    "captioning/inputs.py",
    "captioning/stage.py",
    "captioning/__init__.py",
}  # values: `params:`; progress, tracking, refusals, and holding inputs still change no output
COMMANDS = {
    "captioning/__main__.py",
    "captioning/housekeeping.py",
    "captioning/jobs.py",
    "captioning/publish.py",
}  # what people run beside the stages
TEMPLATES = {"captioning/report.py": {"captioning/report.html.j2"}}


def body(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


def script(name: str) -> str:
    return body(name)["cmd"].split()[2].replace(".", "/") + ".py"


def library_imports(path: str) -> set[str]:
    """The captioning/*.py files that `path` imports directly, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "captioning":
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "captioning"]
        else:
            continue
        files = {name.replace(".", "/") + ".py" for name in names}
        found |= {file for file in files if (ROOT / file).exists()}
    return found


def closure(path: str) -> set[str]:
    seen, queue = set(), [path, *(["stages/__init__.py"] if path.startswith("stages/") else [])]
    while queue:
        for module in library_imports(queue.pop()) - seen - NOT_IN_OUTPUTS:
            seen.add(module)
            queue.append(module)
    return seen | {template for module in seen for template in TEMPLATES.get(module, set())}


@pytest.mark.parametrize("name", STAGES)
def test_deps_name_the_code_a_stage_runs(name: str) -> None:
    declared = {dep for dep in body(name)["deps"] if dep.endswith((".py", ".j2"))}
    assert declared == closure(script(name)) | {script(name)}


def test_every_library_file_is_used_by_a_stage_or_a_command() -> None:
    used = {file for name in STAGES for file in closure(script(name)) if file.endswith(".py")} | NOT_IN_OUTPUTS
    used |= COMMANDS | {file for command in COMMANDS for file in closure(command)}
    assert {f"captioning/{path.name}" for path in (ROOT / "captioning").glob("*.py")} == used


def test_dvc_reads_every_stage() -> None:
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = set(listed.stdout.split())
    assert {name.split("@")[0] for name in names} == set(STAGES)
    assert set(YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]) <= names, "dvc.lock remembers a stage that is gone"


def test_no_interpolation_inside_params() -> None:
    """`dvc exp run -S` would resolve it and write the literal back."""
    assert "${" not in (ROOT / "params.yaml").read_text(encoding="utf-8")


def test_no_parameter_has_a_name_that_the_run_cache_leaves_out() -> None:
    """DVC leaves every `size` and `nfiles` out of a run's hash: another value would bring back the old results."""
    queue = [YAML(typ="safe").load(ROOT / "params.yaml")]
    while queue:
        section = queue.pop()
        assert not {"size", "nfiles"} & section.keys()
        queue += [value for value in section.values() if isinstance(value, dict)]


@pytest.mark.parametrize("name", ["download", "split", "caption_stats", "recipes", "evaluate", "report"])
def test_a_stage_without_torch_does_not_import_it(name: str) -> None:
    code = f"import sys, stages.{name}; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'peft')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_result_in_git_is_an_output_of_a_stage() -> None:
    """Nothing is left over from a row that there was once."""
    tracked = subprocess.run(
        ["git", "ls-files", "metrics", "plots"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    locked = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"].values()
    assert set(tracked.stdout.split()) <= {out["path"] for stage in locked for out in stage["outs"]}
