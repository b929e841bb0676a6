"""A stage opens only what it declares, and writes what it declares by rename; this is observed from outside."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from captioning.runtime import inputs
from tests.helpers.opened import RUNNING, StageFiles, is_partial, record_opened, within
from tests.helpers.project_copy import Project, opened_files
from tests.test_pipeline import STAGES, closure, script

CONFIGURATION = ("dvc.yaml", "params.yaml", "requirements.txt", "stages/__init__.py", "data/checked.txt")  # at a start
DVC_CONFIG = (".dvc/config", ".dvc/config.local")


def declared_stage(project: Project, stage: str) -> inputs.DeclaredStage:
    command = shlex.split(project.yaml("dvc.lock")["stages"][stage]["cmd"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        declared = inputs.find_declared_stage(command[1:])
    assert declared is not None
    return declared


def checkpoint_folders(project: Project, declared: inputs.DeclaredStage) -> list[str]:
    """Return the checkpoint's folder that the stage's recipe names."""
    recipes = [json.loads(project.read(dep)) for dep in declared.deps if dep.startswith("data/recipes/")]
    return [f"models/checkpoints/{recipe['checkpoint']['name']}" for recipe in recipes[:1]]


def is_exempt(path: str) -> bool:
    return within(path, [".cache"]) or "/__pycache__/" in path or is_partial(path)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_opens_and_writes_what_it_declares(name: str, world: Project) -> None:
    """Each instance of the stage was watched when the small world was made."""
    instances = {stage: files for stage, files in opened_files(world).items() if stage.partition("@")[0] == name}
    assert instances
    for stage, files in instances.items():
        declared = declared_stage(world, stage)
        imported = closure(script(name), exempt=True)  # with the modules that change no output
        allowed = {*declared.deps, *declared.outs, *imported, *checkpoint_folders(world, declared)}
        allowed |= {*CONFIGURATION, *DVC_CONFIG}
        read, written, renamed = (
            {path for path in paths if not is_exempt(path)} for paths in (files.read, files.written, files.renamed)
        )
        sources = {path for path in read if not path.endswith("__init__.py")}
        assert sorted(path for path in sources if not within(path, allowed)) == [], f"{stage}: opened, not declared"
        assert sorted(written) == [], f"{stage}: written in place, or not declared"
        assert sorted(path for path in renamed if not within(path, declared.outs)) == [], f"{stage}: not declared"
        assert renamed, f"{stage} has written nothing"
        assert {"stages/__init__.py", "captioning/runtime/progress.py"} <= read, "opened sources are not seen"


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


def run_code(code: str, folder: Path) -> StageFiles:
    with record_opened(folder) as files:
        (folder / RUNNING / "code").touch()
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
        (folder / RUNNING / "code").unlink()
    return files.stages["code"]
