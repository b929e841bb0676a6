"""A kill cuts no dvc.lock short; DVC's locks on paths do not outlive a restart."""

import os
from pathlib import Path
from typing import Any

import pytest
from dvc.utils.serialize import dumps_yaml
from ruamel.yaml import YAML

from pipeline import reproduction
from pipeline.reproduction import EMPTY, PLAIN, Pipeline, remove_stale_locks, replace_entries
from tests.helpers.jobs_project import make_project


def test_a_record_that_is_interrupted_leaves_the_old_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "project")
    project.dvc("repro", "seed")
    before = project.read("dvc.lock")
    monkeypatch.chdir(project.folder)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reproduction, "to_lockfile", interrupt)
        Pipeline(["part@b"]).reproduce("part@b")
    assert project.read("dvc.lock") == before and project.path_locks() == {}
    assert Pipeline(["part@b"]).reproduce("part@b")
    assert project.read("dvc.lock").startswith(before + "  part@b:\n")
    assert not Pipeline(["part@b"]).reproduce("part@b"), "nothing changed"


@pytest.mark.parametrize("rest", [{}, {"datasets": [{"name": "pictures", "url": "data"}]}], ids=["plain", "datasets"])
def test_entries_are_replaced_as_dvc_writes_them(rest: dict[str, Any]) -> None:
    """An entry that is new, one that is longer, one of a removed stage; a folded command, and what is not a stage's."""

    def entry(command: str) -> dict[str, Any]:
        dep = {"path": "data/caf\u00e9 1.txt", "hash": "md5", "md5": "1e5", "size": 7}
        return {"cmd": command, "deps": [dep], "params": {"params.yaml": {"rate": 1e-6, "none": None}}}

    def dump(**commands: str) -> str:
        stages = {name.replace("_", ": "): entry(command) for name, command in commands.items()}
        return dumps_yaml({"schema": "2.0", "stages": stages} | rest)

    long = "python -m stages.generate " + "--recipe data/recipes/mix.json " * 4
    order = ["check", "split", "a: b", "report"]
    text = dump(removed="x", check="x", a_b="x", report="x")
    assert (PLAIN.fullmatch(text) is None) is bool(rest)
    for name in "a: b", "split":
        text = replace_entries(text, {name: entry(long)}, order)
    assert text == dump(removed="x", check="x", split=long, a_b=long, report="x")


@pytest.mark.parametrize(
    "text",
    [
        EMPTY,
        "schema: '2.0'\nstages: {}\n",
        "schema: '2.0'\n",
        EMPTY + "  check:\n    cmd: old",
        EMPTY + "# mine\n  check:\n    cmd: old\n",
        EMPTY + "  # mine\n  check:\n    cmd: old\n",
    ],
)
def test_a_lock_file_that_somebody_edited_is_read_as_yaml(text: str) -> None:
    content = YAML(typ="safe").load(replace_entries(text, {"split": {"cmd": "new"}}, ["check", "split"]))
    old = {"check": {"cmd": "old"}} if "check" in text else {}
    assert content == {"schema": "2.0", "stages": old | {"split": {"cmd": "new"}}}


LOCKED = '{"models": {"write": {"pid": PID, "cmd": "dvc repro"}}}'  # PID: of a process that works


@pytest.mark.parametrize(
    ("text", "time", "is_kept"),
    [
        (LOCKED, None, True),
        (LOCKED, (1.0, 1.0), False),
        ("{}", None, True),
        ("", None, False),
        (LOCKED[:-1], None, False),
    ],
)
def test_only_complete_locks_of_this_start_are_kept(
    text: str, time: tuple[float, float] | None, is_kept: bool, tmp_path: Path
) -> None:
    remove_stale_locks(tmp_path)
    path = tmp_path / "rwlock"
    path.write_text(text.replace("PID", str(os.getpid())))
    os.utime(path, time)
    remove_stale_locks(tmp_path)
    assert path.exists() is is_kept
