"""dvc.yaml matches the code: a stage depends on exactly the library packages that it runs."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from captioning.params import recipe, sections
from captioning.params.packages import GROUPS

ROOT = Path(__file__).parent.parent
LIBRARY = ("captioning", "pipeline")
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
EXEMPT = ("captioning/params/", "captioning/runtime/", "captioning/limits/")  # values are in `params:`
WRITERS = ("captioning/params/recipes.py", "captioning/params/packages.py")  # of outputs, so they are dependencies
COMMANDS = (
    "captioning/__main__.py",
    "captioning/commands/publish.py",
    "captioning/compare/__main__.py",
    "captioning/export/__main__.py",
    "captioning/serve/__main__.py",
    "pipeline/jobs.py",
    "pipeline/overrides.py",
)  # no stages


def is_exempt(file: str) -> bool:
    """Return whether no edit of a library file changes an output."""
    return file not in WRITERS and (file.startswith(EXEMPT) or file == "captioning/__init__.py")


def body(name: str) -> dict:
    return STAGES[name].get("do", STAGES[name])


def script(name: str) -> str:
    return body(name)["cmd"].split()[2].replace(".", "/") + ".py"


def library_imports(path: str) -> set[str]:
    """Return the library files that `path` imports directly, anywhere in it."""
    files: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in LIBRARY:
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] in LIBRARY]
        else:
            continue
        files |= {name.replace(".", "/") + ".py" for name in names}
    return {file for file in files if (ROOT / file).exists()}


def closure(path: str, exempt: bool = False) -> set[str]:
    """Return the library files that `path` runs; `exempt`: also those that change no output, and their imports."""
    seen, queue = set(), [path, *(["stages/__init__.py"] if path.startswith("stages/") else [])]
    while queue:
        for module in library_imports(queue.pop()) - seen:
            if exempt or not is_exempt(module):
                seen.add(module)
                queue.append(module)
    return seen


def is_in(file: str, dep: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


@pytest.mark.parametrize("name", STAGES)
def test_deps_name_the_packages_a_stage_runs(name: str) -> None:
    """Each file that it runs is in one of them, and each of them contains such a file."""
    code = closure(script(name)) | {script(name)}
    deps = [dep for dep in body(name)["deps"] if dep.startswith(("captioning", "stages"))]
    assert [file for file in sorted(code) if sum(is_in(file, dep) for dep in deps) != 1] == []
    assert [dep for dep in deps if not any(is_in(file, dep) for file in code)] == []
    exempt = [dep for dep in deps if is_exempt(dep if dep.endswith(".py") else f"{dep}/")]
    assert exempt == (["captioning/params"] if name == "recipes" else []), "recipes writes what these types say"


def test_each_library_file_is_used_by_a_stage_or_a_command() -> None:
    used = {file for name in STAGES for file in closure(script(name), exempt=True)}
    used |= {*COMMANDS, *(file for command in COMMANDS for file in closure(command, exempt=True))}
    files = {path.relative_to(ROOT).as_posix() for folder in LIBRARY for path in (ROOT / folder).rglob("*.py")}
    assert {file for file in files if not file.endswith("__init__.py")} == used - {"captioning/__init__.py"}


def test_a_package_has_at_most_9_files_and_the_library_23_entries() -> None:
    folders = [path for path in (ROOT / "captioning").rglob("*") if path.is_dir() and path.name != "__pycache__"]
    assert len([path for path in (ROOT / "captioning").iterdir() if path.name != "__pycache__"]) <= 23
    assert [folder for folder in folders if len([path for path in folder.iterdir() if path.is_file()]) > 9] == []


def test_dvc_reads_each_stage() -> None:
    listed = subprocess.run(
        ["dvc", "stage", "list", "--name-only"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = set(listed.stdout.split())
    assert {name.split("@")[0] for name in names} == set(STAGES)
    assert set(YAML(typ="safe").load(ROOT / "dvc.lock")["stages"]) <= names, (
        "dvc.lock has a stage that dvc.yaml has not"
    )


def test_params_yaml_has_no_reference() -> None:
    """`dvc exp run -S` would replace it by its value."""
    assert "${" not in (ROOT / "params.yaml").read_text(encoding="utf-8")


def test_no_parameter_has_a_name_that_the_run_cache_ignores() -> None:
    """DVC ignores `size` and `nfiles` in a run's hash: another value would restore the old results."""
    queue = [YAML(typ="safe").load(ROOT / "params.yaml")]
    while queue:
        section = queue.pop()
        assert not {"size", "nfiles"} & section.keys()
        queue += [value for value in section.values() if isinstance(value, dict)]


def test_a_stage_without_torch_does_not_import_it() -> None:
    names = ("download", "split", "caption_stats", "recipes", "evaluate", "report", "viewer")
    modules = ", ".join(f"stages.{name}" for name in names)
    code = f"import sys, {modules}; print({{'torch', 'transformers', 'peft'}} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"


def test_each_result_in_git_is_an_output_of_a_stage() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "metrics", "plots"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    locked = YAML(typ="safe").load(ROOT / "dvc.lock")["stages"].values()
    outputs = [Path(out["path"]) for stage in locked for out in stage["outs"]]
    assert [name for name in tracked.stdout.split() if not any(map(Path(name).is_relative_to, outputs))] == []


NO_OUTPUT = {"httpx2", "ruamel", "tqdm", "psutil", "filelock", "jaxtyping", "dvc", "huggingface_hub"}
NOT_PINNED = {*LIBRARY, "stages", *sys.stdlib_module_names}


def third_party(path: str) -> set[str]:
    """Return the installed packages that a file imports."""
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
    missing = {package for package in imported if not pinned & {name.lower() for name in distributions[package]}}
    assert name == "check" or not missing


NEUTRAL = {  # what packages of a group need and no output rests on
    *("annotated-types", "attrs", "typing-extensions", "typing-inspection", "packaging", "python-dateutil"),  # types
    *("certifi", "filelock", "fsspec", "huggingface-hub", "psutil", "pyyaml"),  # files and networks
    *("click", "click-plugins", "cligj", "tqdm", "typer"),  # command lines
    *("jinja2", "networkx", "regex", "setuptools", "sympy"),  # compilers and chats, of torch and transformers
}


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_pins_what_its_packages_compute_with(group: str) -> None:
    pinned = {canonicalize_name(name) for name in GROUPS[group]}
    needs = [Requirement(text) for name in GROUPS[group] for text in requires(name) or ()]
    needs = [need for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    needed = {canonicalize_name(need.name) for need in needs if not str(need.specifier).startswith("==")}
    assert needed - NEUTRAL <= pinned


def test_no_stage_depends_on_a_tool() -> None:
    assert not {"ruff", "pytest", "mypy", "dvc", "hypothesis"} & {name for group in GROUPS.values() for name in group}


VALUES_AND_CHECKS = {
    "params/faults.py",
    "params/load.py",
    "params/recipe.py",
    "params/sections.py",
    "limits/memory.py",
    "limits/scst.py",
    "limits/sizes.py",  # numbers for `auto`, which change an output by rounding alone
}


RUNTIME = "captioning.runtime"
USED_FROM_RUNTIME = {  # none of them makes or formats what an output holds
    *("command", "stage_main", "progress", "Stopwatch", "missing_package", "tracked"),
    *("Results", "States", "exclusive_folder", "exclusive_run_folder"),
    *("fetched_folder", "is_copy", "main_folder", "remove_downloads"),
    "remove_finished_runs",
}


def names_from_runtime(file: str) -> set[str]:
    """Return the functions and classes of captioning/runtime that `file` uses, imported or as `module.name`."""
    nodes = list(ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom)]
    assert not any(alias.name.startswith("captioning.runtime") for node in imports for alias in node.names)
    names = {alias.name for node in imports if (node.module or "").startswith(f"{RUNTIME}.") for alias in node.names}
    modules = {alias.asname or alias.name for node in imports if node.module == RUNTIME for alias in node.names}
    uses = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    names |= {node.attr for node in uses if node.value.id in modules}
    return {name for name in names if not name.isupper()}


def test_exempt_modules_give_only_values_and_checks() -> None:
    """Whatever makes an output from params.yaml, or formats one, must be a dependency."""
    files = {file for name in STAGES for file in closure(script(name)) | {script(name)}}
    assert {name for file in files for name in names_from_runtime(file)} == USED_FROM_RUNTIME
    exempt = {module for file in files for module in library_imports(file) if is_exempt(module)}
    modules = {module.removeprefix("captioning/") for module in exempt if not module.endswith("__init__.py")}
    assert {module for module in modules if not module.startswith("runtime/")} == VALUES_AND_CHECKS
    assert members_of_sections() == {
        *("Params.active", "Params.data", "Machine.chosen", "VariantRecipe.prompt", "ScstRecipe.prompt")
    }, "no dependency records what such a member makes, so it only names a value"


def members_of_sections() -> set[str]:
    """Return the public members of the sections of params.yaml and of recipes that are no fields."""
    classes = {value for module in (sections, recipe) for value in vars(module).values() if isinstance(value, type)}
    kinds = {kind for kind in classes if issubclass(kind, sections.Section)}
    names = {(kind.__name__, name) for kind in kinds for name in vars(kind).keys() - kind.model_fields.keys()}
    return {f"{kind}.{name}" for kind, name in names if not name.startswith(("_", "model_"))}
