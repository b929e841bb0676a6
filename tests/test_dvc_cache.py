"""`make gc` refuses where a result may be needed and nothing that it looks at names it; Ctrl-C is one line."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.housekept import ROOT, Standin, project, template, used

__all__ = ["project", "template", "used"]

SLEEPS = "import pathlib, time; pathlib.Path('begun').touch(); time.sleep(60)"
LINE = "interrupted; give the command again, and it tells what is left\n"


def refused(project: Standin) -> str:
    """Why nothing was freed, in one line; also the interrupted run is there still."""
    before, run = project.objects(), project.interrupted("scst/ab12")
    said = project.keep_house("gc", "--yes")
    assert (said.returncode, said.stdout) == (1, "") and said.stderr.count("\n") == 1
    assert project.objects() == before and run.is_dir()
    shutil.rmtree(run)
    return said.stderr


def test_gc_refuses_while_the_torn_lock_alone_may_name_results(used: tuple[Standin, set[str]]) -> None:
    """dvc.lock is the last commit's again, which holds another result of the same stage."""
    project, unused = used
    kept = project.train(1500)
    shutil.move(project.folder / "dvc.lock", project.folder / ".dvc/tmp/dvc.lock.torn")
    project.run("git", "checkout", "--quiet", "dvc.lock")
    assert "results since the last commit may stand in .dvc/tmp/dvc.lock.torn alone; `dvc repro`" in refused(project)
    project.run("dvc", "repro", "--quiet")
    assert project.keep_house("gc", "--yes").stderr == "freed\n"
    assert kept <= project.objects() and not unused & project.objects()


def test_gc_refuses_where_a_result_is_not_recorded(used: tuple[Standin, set[str]]) -> None:
    project, _ = used
    (project.folder / "dvc.lock").unlink()
    assert "error: model is there and dvc.lock does not record it; `dvc repro` takes them back" in refused(project)


@pytest.mark.parametrize("kept", [0, 30])
def test_gc_refuses_a_lock_that_dvc_would_not_take(used: tuple[Standin, set[str]], kept: int) -> None:
    project, _ = used
    os.truncate(project.folder / "dvc.lock", kept)
    assert refused(project).startswith("error: dvc.lock is cut short, or a merge is not settled in it; ")


def test_gc_refuses_beside_other_worktrees(used: tuple[Standin, set[str]], tmp_path: Path) -> None:
    project, unused = used
    project.run("git", "worktree", "add", "--quiet", "--detach", str(tmp_path / "beside"))
    assert "error: git has 2 worktrees here" in (line := refused(project)) and "`git worktree remove` them" in line
    shutil.rmtree(tmp_path / "beside")  # git still lists it
    assert project.keep_house("gc", "--yes").returncode == 0 and not unused & project.objects()


@contextmanager
def begun(project: Standin, **where: object) -> Iterator[subprocess.Popen[str]]:
    """`gc`, in a process group of its own, as a terminal's jobs are."""
    call = [sys.executable, "-m", "captioning.housekeeping", "gc"]
    environment = os.environ | {"PYTHONPATH": f"{project.folder / 'fake'}{os.pathsep}{ROOT}", "DVC_NO_ANALYTICS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell may have had it ignored
    with subprocess.Popen(call, cwd=project.folder, env=environment, preexec_fn=heeding, **pipes, **where) as gc:
        try:
            yield gc
        finally:
            gc.kill()


def interrupt(gc: subprocess.Popen[str]) -> None:
    """Ctrl-C once it waits: Python answers a signal that comes just before when the wait is over."""
    while gc.poll() is None and psutil.Process(gc.pid).status() != psutil.STATUS_SLEEPING:
        time.sleep(0.01)
    os.killpg(gc.pid, signal.SIGINT)


def test_interrupted_while_dvc_runs_it_is_one_line(project: Standin) -> None:
    (project.folder / "fake/dvc").mkdir(parents=True)
    (project.folder / "fake/dvc/__init__.py").touch()
    (project.folder / "fake/dvc/__main__.py").write_text(SLEEPS, encoding="utf-8")
    with begun(project) as gc:
        while not (project.folder / "begun").exists() and gc.poll() is None:
            time.sleep(0.05)
        interrupt(gc)
        assert gc.communicate(timeout=30) == ("", LINE) and gc.returncode == 130


@pytest.mark.parametrize(("key", "status", "line"), [
    ("C", 130, LINE), ("D", 0, "nothing was freed; `make gc YES=1` frees it\n"),
])  # fmt: skip
def test_no_answer_is_one_line_and_frees_nothing(project: Standin, key: str, status: int, line: str) -> None:
    run, (terminal, stdin) = project.interrupted("scst/ab12"), pty.openpty()
    with begun(project, stdin=stdin) as gc:
        asked = ""
        while not asked.endswith("free it? [y/N] ") and (read := gc.stdout.read(1)):
            asked += read
        if key == "C":
            interrupt(gc)
        else:
            os.write(terminal, b"\x04")
        assert gc.communicate(timeout=30) == ("\n", line) and gc.returncode == status
    assert run.is_dir()
    for end in (stdin, terminal):
        os.close(end)
