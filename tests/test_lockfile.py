"""A dvc.lock that was cut short anywhere is put right, and what DVC would take is left alone."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.repo import Repo

from benchmarks.copies import AUTHOR, ROOT
from captioning import lockfile
from captioning.lockfile import LOCK, TORN, is_whole, mend
from tests.project_copy import Project

WHOLE = (ROOT / LOCK).read_bytes()
CUT = WHOLE[: WHOLE.index(b"hash: md5") + 2]  # within a key
OUT = b"path: b\n      hash: md5\n      md5: 0123456789abcdef0123456789abcdef.dir\n"
ONE = b"schema: '2.0'\nstages:\n  a:\n    cmd: echo\n    outs:\n    - " + OUT


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


@pytest.mark.parametrize("kept", [0, 1, 14, 20, 40, 71, 80, len(CUT), len(WHOLE) // 2 + 33, len(WHOLE)])
def test_what_is_whole_dvc_takes(repository: Path, kept: int) -> None:
    LOCK.write_bytes(content := WHOLE[:kept])
    with Repo() as repo:
        try:
            Lockfile(repo, str(LOCK)).load()
        except DvcException:
            assert not is_whole(content)


def test_a_cut_anywhere_but_between_lines_is_none() -> None:
    """DVC takes many of them, and half a hash for a changed output: it trains again."""
    hash_ = ONE.index(b"0123")
    assert is_whole(ONE) and not any(is_whole(ONE[:kept]) for kept in range(hash_ - 3, len(ONE)))
    assert not is_whole(ONE[: hash_ + 12] + b"\n")


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


MERGES = [mark + b"\n  a:" for mark in (b"<<<<<<< HEAD", b"=======", b">>>>>>> branch")]


@pytest.mark.parametrize("content", [ONE, ONE + b"  a: {}\n", *(ONE.replace(b"  a:", mark) for mark in MERGES)])
def test_a_whole_one_and_a_merge_that_is_not_settled_are_left(repository: Path, content: bytes) -> None:
    commit(ONE.replace(b"echo", b"other"))
    LOCK.write_bytes(content)
    mend()
    assert LOCK.read_bytes() == content and not TORN.exists()


def test_what_another_dvc_is_writing_is_left_alone(repository: Path) -> None:
    commit(ONE)
    LOCK.write_bytes(CUT)
    with Repo() as writing, writing.lock:
        done = subprocess.run([sys.executable, "-m", "captioning.lockfile"], env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 0 and LOCK.read_bytes() == CUT and not TORN.exists()


def test_a_full_disk_is_one_line_and_leaves_the_torn_one(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(ONE)
    LOCK.write_bytes(CUT)
    monkeypatch.setattr(lockfile, "write_text", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    assert lockfile.main() == 1
    assert capsys.readouterr().err == (
        "error: dvc.lock is cut short and cannot be put right: full; make room, then give the command again\n"
    )
    assert LOCK.read_bytes() == CUT


def test_without_git_it_begins_anew(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LOCK.write_bytes(CUT)
    monkeypatch.setenv("PATH", "")
    mend()
    assert not LOCK.exists() and TORN.read_bytes() == CUT


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
