"""A stage opens what it declares and writes what it declares, by rename: seen from outside, not read in its code."""

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captioning.runtime import inputs
from tests.helpers.opened import Opened, is_partial, opened, within
from tests.helpers.project_copy import Project
from tests.test_pipeline import STAGES, closure, script

OF_EVERY_STAGE = {  # what a fingerprint is made from, and where DVC is told to keep its copies
    "dvc.yaml", "params.yaml", "requirements.txt", "stages/__init__.py", ".dvc/config", ".dvc/config.local",
}  # fmt: skip
BESIDE = (".cache", "__pycache__")
ONE_OF = {  # an instance of each
    "checkpoint": "base", "qlora-train": "mix-1", "scst": "mix-greedy-1", "zero-shot": "base", "generate": "mix-1",
    "generate-scst": "mix-greedy-1",
}  # fmt: skip


@pytest.fixture(scope="module")
def project(world: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return world.clone(tmp_path_factory.mktemp("opened") / "project")


def run(project: Project, stage: str, pycache: Path) -> tuple[Opened, inputs.DeclaredStage, str | None]:
    """One stage's own command, without DVC; what it opened, what it declares, and the checkpoint of its recipe."""
    command = next(one for one in commands(project) if one[0] == stage)[1]
    declared = command_of(project, command)
    environment = project.environment() | {"PYTHONPYCACHEPREFIX": str(pycache)}  # so that sources are opened
    for out in declared.outs:  # as DVC does
        remove(project.folder / out)
    with opened(project.folder) as found:
        done = subprocess.run(command, cwd=project.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    recipes = [project.folder / dep for dep in declared.deps if dep.startswith("data/recipes/")]
    name = json.loads(recipes[0].read_text())["checkpoint"]["name"] if recipes else None
    return found, declared, name and f"models/checkpoints/{name}"


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def commands(project: Project) -> list[tuple[str, list[str]]]:
    """Every stage with its command."""
    lock = project.yaml("dvc.lock")["stages"]
    return [(name, shlex.split(entry["cmd"])) for name, entry in lock.items()]


def command_of(project: Project, command: list[str]) -> inputs.DeclaredStage:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        found = inputs.find_declared_stage(command[1:])
    assert found is not None
    return found


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_opens_and_writes_what_it_declares(name: str, project: Project, tmp_path: Path) -> None:
    stage = f"{name}@{ONE_OF[name]}" if name in ONE_OF else name
    found, declared, checkpoint = run(project, stage, tmp_path)
    besides = closure(script(name), exempt=True)  # what changes no output, and what it imports
    allowed = {*declared.deps, *declared.outs, *OF_EVERY_STAGE, *besides, *([checkpoint] if checkpoint else [])}
    beside = {one for one in found.read | found.written | found.renamed if within(one, BESIDE) or is_partial(one)}
    assert (
        sorted(one for one in found.read - beside if not within(one, allowed) and not one.endswith("__init__.py")) == []
    ), "opened, not declared"
    assert sorted(one for one in found.written - beside) == [], "written in place, or not declared"
    assert sorted(one for one in found.renamed - beside if not within(one, declared.outs)) == [], "not declared"
    assert found.renamed - beside, "it has written something"
    assert {"stages/__init__.py", "captioning/runtime/progress.py"} <= found.read, (
        "sources are seen when they are opened"
    )


@pytest.mark.parametrize("code", [
    "open('b/secret.txt').read()",
    "import pyarrow.parquet as pq; pq.read_table('b/secret.parquet')",
    "import safetensors; safetensors.safe_open('b/secret.safetensors', 'numpy').keys()",
])  # fmt: skip
def test_what_is_opened_is_seen(code: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from safetensors.numpy import save_file

    (tmp_path / "b").mkdir()
    (tmp_path / "b/secret.txt").write_text("1")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b/secret.parquet")
    save_file({}, tmp_path / "b/secret.safetensors")
    found = watched(code, tmp_path)
    assert found.read == {f"b/secret.{next(end for end in ('txt', 'parquet', 'safetensors') if end in code)}"}
    assert found.written == found.renamed == set()


@pytest.mark.parametrize(("code", "written", "renamed"), [
    ("open('b/new.txt', 'w').write('1')", {"b/new.txt"}, set()),
    ("open('a.txt', 'a').write('1')", {"a.txt"}, set()),
    ("import os; os.remove('a.txt')", {"a.txt"}, set()),
    ("import os; os.rename('a.txt', 'b/a.txt')", set(), {"b/a.txt"}),
])  # fmt: skip
def test_what_is_written_is_seen(code: str, written: set[str], renamed: set[str], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("1")
    found = watched(code, tmp_path)
    assert (found.written, found.renamed) == (written, renamed)


def watched(code: str, folder: Path) -> Any:
    with opened(folder) as found:
        subprocess.run([sys.executable, "-c", code], cwd=folder, check=True)
    return found
