"""dvc.lock in DVC's order with its bytes untouched; what killed processes held on paths is let go."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pipeline.reproduction import Pipeline, forget_dead, settle
from tests.helpers.jobs_project import stand
from tests.helpers.project_copy import ROOT

LOCK = """schema: '2.0'
stages:
  c@1:
    cmd: |-
      echo one

      echo two
    outs:
    - path: c  # as it is
  '2':
    cmd: python -m a --b
      c
  a: {cmd: x}
datasets:
- name: d
"""


@pytest.mark.parametrize("order", [["c@1", "2", "a"], ["a", "2", "c@1"], ["2", "gone", "a", "c@1"]])
def test_entries_are_put_in_order_and_stay_as_they_are(order: list[str], tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    text = LOCK.replace("  a: {cmd: x}\n", "  a:\n    cmd: x\n")
    lock.write_text(text)
    settle(lock, order)
    entries = {"c@1": text[text.index("  c@1") : text.index("  '2'")],
               "2": text[text.index("  '2'") : text.index("  a:")], "a": "  a:\n    cmd: x\n"}  # fmt: skip
    head, tail = text[: text.index("  c@1")], text[text.index("datasets") :]
    assert lock.read_text() == head + "".join(entries[name] for name in order if name in entries) + tail


def test_the_projects_own_lock_goes_there_and_back(tmp_path: Path) -> None:
    text = (ROOT / "dvc.lock").read_text()
    lock = tmp_path / "dvc.lock"
    lock.write_text(text)
    names = [line[2:-1] for line in text.splitlines() if line.startswith("  ") and line[2] not in " -"]
    settle(lock, names[::-1])
    turned = lock.read_text()
    assert turned != text and sorted(turned.splitlines()) == sorted(text.splitlines())
    settle(lock, names)
    assert lock.read_text() == text


@pytest.mark.parametrize("text, order", [(LOCK, ["a", "2", "c@1"]), (LOCK, ["a", "c@1"]), ("", ["a"]), ("stages:", [])])
def test_what_dvc_does_not_write_is_left_alone(text: str, order: list[str], tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    settle(lock, order)
    assert not lock.exists()
    lock.write_text(text)
    settle(lock, order)
    assert lock.read_text() == text


def test_a_lock_cut_short_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was recorded stays until the next is recorded whole."""
    project = stand(tmp_path / "project")
    project.dvc("repro", "seed")
    before = project.read("dvc.lock")
    monkeypatch.chdir(project.folder)

    def cut_short(lock: Path, order: list[str]) -> None:
        lock.write_text(lock.read_text()[:99])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pipeline.reproduction.settle", cut_short)
        Pipeline(["part@b"]).reproduce("part@b")
    assert project.read("dvc.lock") == before and project.held() == {}
    assert Pipeline(["part@b"]).reproduce("part@b")
    assert project.read("dvc.lock").startswith(before + "  part@b:\n")
    assert not Pipeline(["part@b"]).reproduce("part@b"), "nothing changed"


def holding(folder: Path, alive: int, dead: int) -> dict[str, Any]:
    mine, gone = {"pid": alive, "cmd": "dvc repro"}, {"pid": dead, "cmd": "dvc repro -s b"}
    held = {"write": {"a": mine, "b": gone}, "read": {"c": [gone, mine], "d": [gone]}}
    (folder / "rwlock").write_text(json.dumps(held))
    return held


def test_what_a_killed_process_held_is_let_go(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    forget_dead(tmp_path)
    held = holding(tmp_path, os.getpid(), gone.pid)
    forget_dead(tmp_path)
    assert json.loads((tmp_path / "rwlock").read_text()) == {
        "write": {"a": held["write"]["a"]}, "read": {"c": held["read"]["c"][1:]},
    }  # fmt: skip


def test_a_number_that_was_given_away_again_holds_nothing(tmp_path: Path) -> None:
    """As after a container's restart: the process of that number began after the lock was written."""
    holding(tmp_path, os.getpid(), os.getpid())
    os.utime(tmp_path / "rwlock", (1e9, 1e9))
    forget_dead(tmp_path)
    assert json.loads((tmp_path / "rwlock").read_text()) == {"write": {}, "read": {}}


@pytest.mark.parametrize("text", ["", '{"write": {"a": {"pi'])
def test_a_lock_that_was_written_by_halves_blocks_nobody(text: str, tmp_path: Path) -> None:
    (tmp_path / "rwlock").write_text(text)
    forget_dead(tmp_path)
    path = tmp_path / "rwlock"
    assert not path.exists() or json.loads(path.read_text()) == {"write": {}, "read": {}}
