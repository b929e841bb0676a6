"""dvc.yaml against the code: a stage depends on exactly the library files it runs, and writes what it says."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from captioning.packages import GROUPS
from captioning.params import Params

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
NOT_IN_OUTPUTS = {
    "captioning/params.py",
    "captioning/param_faults.py",
    "captioning/param_sections.py",
    "captioning/plain_yaml.py",
    "captioning/runlog.py",
    "captioning/notices.py",
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


NO_OUTPUT = {"httpx2", "pydantic", "ruamel", "tqdm", "psutil", "filelock", "jaxtyping", "dvc", "huggingface_hub"}
NOT_PINNED = {"captioning", "stages", *sys.stdlib_module_names}


def third_party(path: str) -> set[str]:
    """The installed packages that a file imports."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names - NOT_PINNED


@pytest.mark.parametrize("name", STAGES)
def test_deps_name_the_packages_a_stage_computes_with(name: str) -> None:
    """Their pins are dependencies, so that another version runs the stage again."""
    groups = {Path(dep).stem for dep in body(name)["deps"] if dep.startswith("data/packages/")}
    pinned = {package.lower() for group in groups for package in GROUPS[group]}
    files = {file for file in closure(script(name)) | {script(name)} if file.endswith(".py")}
    imported = {package for file in files for package in third_party(file)} - NO_OUTPUT
    distributions = packages_distributions()
    missing = {package for package in imported if not pinned & {one.lower() for one in distributions[package]}}
    assert name == "check" or not missing


def test_tools_are_no_dependency() -> None:
    assert not {"ruff", "pytest", "mypy", "dvc", "hypothesis"} & {name for group in GROUPS.values() for name in group}


def test_what_no_stage_depends_on_gives_values_and_refusals_alone() -> None:
    """Whatever makes an output from params.yaml, or formats one, is a dependency: these names are all that stages and
    their dependencies take from modules that are none."""
    allowed = {
        "Checkpoint", "CHECKPOINTS", "Data", "Declared", "HubCheckpoints", "Params", "Tracking", "load_params",
        "read_yaml", "UserError", "first_process", "progress", "bar", "put", "peak_memory", "Stopwatch", "redacted",
        "tracked", "missing_package", "length", "require", "finetune_needs", "generation_needs", "longest_suffix",
        "scst_needs", "disk", "inputs", "unmoved", "BY_HAND", "FINGERPRINT", "REQUIREMENTS", "command", "stage_main",
        "silence_known_notices", "Terminated",
        "finetune_files", "scst_files", "secrets", "DEVICE", "begin", "stage", "resume", "sizes", "install",
    }  # fmt: skip
    names = set()
    for file in {file for name in STAGES for file in closure(script(name)) | {script(name)} if file.endswith(".py")}:
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            module = (node.module or "").replace(".", "/") if isinstance(node, ast.ImportFrom) else ""
            if f"{module}.py" in NOT_IN_OUTPUTS:
                names |= {alias.name for alias in node.names}
    assert names <= allowed
    made = {name for name, value in vars(Params).items() if isinstance(value, property)}
    assert made == {"active", "data"}, "a property of Params makes values that no dependency records"
