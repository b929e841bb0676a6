"""A stage opens only what it declares, and writes what it declares by rename; this is observed from outside."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from captioning.runtime import inputs
from tests.helpers.opened import OpenedFiles, is_partial, record_opened, within
from tests.helpers.project_copy import Project
from tests.test_pipeline import STAGES, closure, script

CONFIGURATION = ("dvc.yaml", "params.yaml", "requirements.txt", "stages/__init__.py")  # the fingerprint's sources
DVC_CONFIG = (".dvc/config", ".dvc/config.local")
UNDECLARED = (".cache", "__pycache__")
INSTANCES = {"checkpoint": "base", "qlora-train": "mix-1", "scst": "mix-greedy-1", "zero-shot": "base"}
INSTANCES |= {"generate": "mix-1", "generate-scst": "mix-greedy-1"}


@pytest.fixture(scope="module")
def project(world: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return world.clone(tmp_path_factory.mktemp("opened") / "project")


def run_stage(project: Project, stage: str, pycache: Path) -> tuple[OpenedFiles, inputs.DeclaredStage]:
    """Run a stage's command without DVC; return the opened files and the declared ones."""
    command = shlex.split(project.yaml("dvc.lock")["stages"][stage]["cmd"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        declared = inputs.find_declared_stage(command[1:])
    assert declared is not None
    for path in (project.folder / out for out in declared.outs):  # as DVC does
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    environment = project.environment() | {"PYTHONPYCACHEPREFIX": str(pycache)}  # empty, so that sources are opened
    with record_opened(project.folder) as files:
        process = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    return files, declared


def checkpoint_folders(project: Project, declared: inputs.DeclaredStage) -> list[str]:
    """Return the checkpoint's folder that the stage's recipe names."""
    recipes = [json.loads(project.read(dep)) for dep in declared.deps if dep.startswith("data/recipes/")]
    return [f"models/checkpoints/{recipe['checkpoint']['name']}" for recipe in recipes[:1]]


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_opens_and_writes_what_it_declares(name: str, project: Project, tmp_path: Path) -> None:
    files, declared = run_stage(project, f"{name}@{INSTANCES[name]}" if name in INSTANCES else name, tmp_path)
    imported = closure(script(name), exempt=True)  # with the modules that change no output
    allowed = {*declared.deps, *declared.outs, *imported, *checkpoint_folders(project, declared)}
    allowed |= {*CONFIGURATION, *DVC_CONFIG}
    exempt = {
        path for path in files.read | files.written | files.renamed if within(path, UNDECLARED) or is_partial(path)
    }
    sources = {path for path in files.read - exempt if not path.endswith("__init__.py")}
    assert sorted(path for path in sources if not within(path, allowed)) == [], "opened, not declared"
    assert sorted(files.written - exempt) == [], "written in place, or not declared"
    assert sorted(path for path in files.renamed - exempt if not within(path, declared.outs)) == [], "not declared"
    assert files.renamed - exempt, "the stage has written nothing"
    assert {"stages/__init__.py", "captioning/runtime/progress.py"} <= files.read, "opened sources are not seen"


FILES = {"txt": "open('b/x.txt').read()", "parquet": "import pyarrow.parquet as pq; pq.read_table('b/x.parquet')"}
FILES |= {"safetensors": "import safetensors; safetensors.safe_open('b/x.safetensors', 'numpy').keys()"}


@pytest.mark.parametrize("suffix", FILES)
def test_opened_files_are_seen(suffix: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    (tmp_path / "b").mkdir()
    (tmp_path / "b/x.txt").write_text("1")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b/x.parquet")
    save_file({}, tmp_path / "b/x.safetensors")
    files = run_code(FILES[suffix], tmp_path)
    assert (files.read, files.written, files.renamed) == ({f"b/x.{suffix}"}, set(), set())


@pytest.mark.parametrize(
    ("code", "written", "renamed"),
    [
        ("open('b/new.txt', 'w').write('1')", {"b/new.txt"}, set()),
        ("open('a.txt', 'a').write('1')", {"a.txt"}, set()),
        ("import os; os.remove('a.txt')", {"a.txt"}, set()),
        ("import os; os.rename('a.txt', 'b/a.txt')", set(), {"b/a.txt"}),
    ],
)
def test_written_files_are_seen(code: str, written: set[str], renamed: set[str], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("1")
    files = run_code(code, tmp_path)
    assert (files.written, files.renamed) == (written, renamed)


def run_code(code: str, folder: Path) -> OpenedFiles:
    with record_opened(folder) as files:
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return files
