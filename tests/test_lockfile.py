"""A dvc.lock that was cut short anywhere is put right, and what DVC would take is left alone."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo

from benchmarks.copies import AUTHOR, ROOT
from captioning.lockfile import LOCK, TORN, is_whole, mend
from tests.project_copy import Project

WHOLE = (ROOT / LOCK).read_bytes()
CUT = WHOLE[: WHOLE.index(b"hash: md5") + 2]  # within a key
ONE = b"schema: '2.0'\nstages:\n  a:\n    cmd: echo\n    outs:\n    - path: b\n      hash: md5\n      md5: 0123\n"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, check=True, env=os.environ | AUTHOR)
    return tmp_path


def commit(content: bytes) -> None:
    LOCK.write_bytes(content)
    subprocess.run(["git", "add", LOCK], check=True)
    subprocess.run(["git", "commit", "--quiet", "--message", "lock"], check=True, env=os.environ | AUTHOR)


@pytest.mark.parametrize("kept", [0, 1, 14, 20, 40, 71, 80, len(WHOLE) // 2, len(WHOLE) // 2 + 33, len(WHOLE)])
def test_whole_is_what_dvc_takes(repository: Path, kept: int) -> None:
    content = WHOLE[:kept]
    LOCK.write_bytes(content)
    with Repo() as repo:
        try:
            Lockfile(repo, str(LOCK)).load()
            taken = True
        except DvcException:
            taken = False
    assert is_whole(content) == taken


def test_the_last_commits_takes_the_place_of_one_cut_short(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(ONE)
    LOCK.write_bytes(torn := CUT)
    mend()
    assert LOCK.read_bytes() == ONE and TORN.read_bytes() == torn
    assert "dvc.lock: cut short" in (said := capsys.readouterr().err) and "last commit's" in said


@pytest.mark.parametrize("committed", [None, b"", CUT])
def test_without_a_whole_one_to_go_back_to_it_begins_anew(repository: Path, committed: bytes | None) -> None:
    if committed is not None:
        commit(committed)
    LOCK.write_bytes(b"")
    mend()
    assert not LOCK.exists() and TORN.read_bytes() == b""


@pytest.mark.parametrize("content", [ONE, ONE.replace(b"  a:", b"<<<<<<< HEAD\n  a:")])
def test_a_whole_one_and_a_merge_that_is_not_settled_are_left(repository: Path, content: bytes) -> None:
    commit(ONE.replace(b"echo", b"other"))
    LOCK.write_bytes(content)
    mend()
    assert LOCK.read_bytes() == content and not TORN.exists()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_make_repro_runs_nothing_again_for_it(world: Project, tmp_path: Path, jobs: str) -> None:
    """Every record is gone; DVC refuses, `make repro` mends it and has all but two short stages from DVC's cache."""
    clone = world.clone(tmp_path / "clone")
    before, lock = clone.outputs(), clone.yaml("dvc.lock")
    clone.run("git", "rm", "--quiet", "--cached", "dvc.lock")
    clone.run("git", "commit", "--quiet", "--message", "No lock")
    (clone.folder / "dvc.lock").write_bytes(b"")
    assert "validation failed" in clone.dvc("repro", ok=False).err
    done = clone.run("python", "-m", "captioning.jobs", "--jobs", jobs)
    logs = "".join(log.read_text(encoding="utf-8") for log in (clone.folder / ".cache/logs").glob("*.log"))
    assert "dvc.lock: cut short" in done.err
    assert set(re.findall("^Running stage '(.+)'", done.out + logs, re.MULTILINE)) == {"caption-stats", "report"}
    assert clone.outputs() == before and clone.yaml("dvc.lock") == lock
