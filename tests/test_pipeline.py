"""dvc.yaml against the code: a stage depends on exactly the library files it runs, and writes what it says."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from captioning.compute.packages import GROUPS
from captioning.params.load import Params

ROOT = Path(__file__).parent.parent
LIBRARY = ("captioning", "pipeline")
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
EXEMPT = ("captioning/params/", "captioning/runtime/", "captioning/limits/")  # values: `params:`; the rest: no output
RECIPES = "captioning/params/recipes.py"  # makes an output of params.yaml, so that it is a dependency
COMMANDS = ("captioning/__main__.py", "captioning/commands/publish.py", "pipeline/jobs.py")  # run beside the stages


def is_exempt(file: str) -> bool:
    """Whether an edit of a library file changes no output."""
    return file != RECIPES and (file.startswith(EXEMPT) or file == "captioning/__init__.py")


def body(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


def script(name: str) -> str:
    return body(name)["cmd"].split()[2].replace(".", "/") + ".py"


def library_imports(path: str) -> set[str]:
    """The library's files that `path` imports directly, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARY:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] in LIBRARY]
        else:
            continue
        files = {name.replace(".", "/") + ".py" for name in names}
        found |= {file for file in files if (ROOT / file).exists()}
    return found


def closure(path: str, exempt: bool = False) -> set[str]:
    """The library's files that `path` runs; `exempt`: those, too, that change no output, and what they import."""
    seen, queue = set(), [path, *(["stages/__init__.py"] if path.startswith("stages/") else [])]
    while queue:
        for module in library_imports(queue.pop()) - seen:
            if exempt or not is_exempt(module):
                seen.add(module)
                queue.append(module)
    return seen


def lies_in(file: str, dep: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


@pytest.mark.parametrize("name", STAGES)
def test_deps_name_the_packages_a_stage_runs(name: str) -> None:
    """Every file that it runs lies in one of them, and none of them is without one."""
    code = closure(script(name)) | {script(name)}
    deps = [dep for dep in body(name)["deps"] if dep.startswith(("captioning", "stages"))]
    assert [file for file in sorted(code) if sum(lies_in(file, dep) for dep in deps) != 1] == []
    assert [dep for dep in deps if not any(lies_in(file, dep) for file in code)] == []
    assert not [dep for dep in deps if is_exempt(dep if dep.endswith(".py") else f"{dep}/")]


def test_every_library_file_is_used_by_a_stage_or_a_command() -> None:
    used = {file for name in STAGES for file in closure(script(name), exempt=True)}
    used |= {*COMMANDS, *(file for command in COMMANDS for file in closure(command, exempt=True))}
    files = {path.relative_to(ROOT).as_posix() for folder in LIBRARY for path in (ROOT / folder).rglob("*.py")}
    assert {file for file in files if not file.endswith("__init__.py")} == used - {"captioning/__init__.py"}


def test_a_folder_is_small_enough_to_read() -> None:
    """At most 20 entries in the library, at most 9 files in a package."""
    folders = [path for path in (ROOT / "captioning").rglob("*") if path.is_dir() and path.name != "__pycache__"]
    assert len([path for path in (ROOT / "captioning").iterdir() if path.name != "__pycache__"]) <= 20
    assert [folder for folder in folders if len([path for path in folder.iterdir() if path.is_file()]) > 9] == []


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
NOT_PINNED = {*LIBRARY, "stages", *sys.stdlib_module_names}


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


VALUES_AND_REFUSALS = """
begin BY_HAND Checkpoint CHECKPOINTS command Data DeclaredStage DEVICE exclusive_run_folder finetune_needs
FINGERPRINT generation_needs HubCheckpoints inputs is_main_process load_params longest_suffix missing_package
Params peak_memory progress progress_bar remove_finished_runs require require_unchanged_inputs REQUIREMENTS
Results resume scst_needs silence_known_notices stage stage_main states States Stopwatch tracked Tracking
write_stdout
"""


def test_what_no_stage_depends_on_gives_values_and_refusals_alone() -> None:
    """Whatever makes an output from params.yaml, or formats one, is a dependency: these names are all that stages and
    their dependencies take from modules that are none."""
    allowed = set(VALUES_AND_REFUSALS.split())
    names = set()
    for file in {file for name in STAGES for file in closure(script(name)) | {script(name)}}:
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = node.module.replace(".", "/")
                if is_exempt(f"{module}.py" if (ROOT / f"{module}.py").is_file() else f"{module}/"):
                    names |= {alias.name for alias in node.names}
    assert names <= allowed
    made = {name for name, value in vars(Params).items() if isinstance(value, property)}
    assert made == {"active", "data"}, "a property of Params makes values that no dependency records"
