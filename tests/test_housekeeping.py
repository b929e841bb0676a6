"""`make gc` and `make clean` tell what they free, item by item, as du counts it, and take nothing that is needed."""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.copies import AUTHOR

ROOT = Path(__file__).parent.parent
DVC_YAML = """
stages:
  train:
    cmd: python train.py
    deps: [train.py]
    params: [length]
    outs: [model]
"""
TRAIN = """
import pathlib
length = int(open("params.yaml").read().split(":")[1])
pathlib.Path("model").mkdir(exist_ok=True)
for part in "ab":
    pathlib.Path(f"model/{part}.bin").write_text(f"{part}{length} " * length)
"""
Said = subprocess.CompletedProcess


class Standin:
    """A DVC project of one stage, whose output is as large as its parameter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self) -> "Standin":
        for name, text in {"dvc.yaml": DVC_YAML, "train.py": TRAIN, "params.yaml": "length: 1000\n"}.items():
            (self.folder / name).write_text(text, encoding="utf-8")
        (self.folder / ".gitignore").write_text("/model\n/.cache\n", encoding="utf-8")
        self.run("git", "init", "--quiet")
        self.run("dvc", "init", "--quiet")
        return self

    def run(self, *command: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | AUTHOR | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def train(self, length: int, commit: str = "") -> set[str]:
        """Run the stage; the hashes of what it wrote."""
        before = self.objects()
        (self.folder / "params.yaml").write_text(f"length: {length}\n", encoding="utf-8")
        self.run("dvc", "repro", "--quiet")
        if commit:
            self.run("git", "add", "--all")
            self.run("git", "commit", "--quiet", "--message", commit)
        return self.objects() - before

    def objects(self) -> set[str]:
        files = (path for path in (self.folder / ".dvc/cache/files").rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix() for path in files}

    def keep_house(self, *arguments: str) -> Said:
        call = [sys.executable, "-m", "captioning.housekeeping", *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
        return subprocess.run(
            call, cwd=self.folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )

    def interrupted(self, name: str) -> Path:
        """A run's folder with a checkpoint and its lock, which nobody holds."""
        run = self.folder / ".cache/resume" / name
        run.mkdir(parents=True)
        (run / "lock").touch()
        (run / "checkpoint.safetensors").write_bytes(b"x" * 70_000)
        return run


@pytest.fixture
def project(tmp_path: Path) -> Standin:
    return Standin(tmp_path).begin()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Standin, set[str]]:
    """Results that a commit, a tag, another branch, an experiment and the working tree need, and the objects of one
    that nothing does."""
    project = Standin(tmp_path_factory.mktemp("template")).begin()
    project.train(1000, "first")
    project.train(1100, "second")
    project.run("git", "tag", "a-tag")
    project.run("git", "checkout", "--quiet", "-b", "other", "HEAD~1")
    project.train(1200, "on another branch")
    project.run("git", "checkout", "--quiet", "-")
    project.run("git", "reset", "--quiet", "--hard", "HEAD~1")
    project.run("dvc", "exp", "run", "--quiet", "-S", "length=1300")
    project.run("git", "checkout", "--quiet", ".")
    unused = project.train(20_000)
    project.train(1400)
    return project, unused


@pytest.fixture
def used(template: tuple[Standin, set[str]], tmp_path: Path) -> tuple[Standin, set[str]]:
    """A copy of the template to keep house in."""
    project, unused = template
    return Standin(shutil.copytree(project.folder, tmp_path / "project", symlinks=True)), unused


def du(*paths: str, folder: Path) -> int:
    done = subprocess.run(
        ["du", "-sc", "--block-size=1", *paths], cwd=folder, capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1].split()[0])


def sizes(said: Said) -> dict[str, str]:
    """By item."""
    found = re.findall(r"^ +(\S+ (?:bytes|kB|MB|GB))  (.+)$", said.stdout, re.MULTILINE)
    return {what: size for size, what in found}


def told(size: int) -> str:
    from captioning.sizes import told

    return told(size)


def test_gc_tells_first_and_frees_what_nothing_needs(used: tuple[Standin, set[str]]) -> None:
    project, unused = used
    run = project.interrupted("qlora-train/ab12")
    before = project.objects()
    assert len(unused) == 3 and unused < before
    said = project.keep_house("gc")
    assert "another clone that uses this cache loses it too:\n" in said.stdout
    assert said.returncode == 0 and "nothing was freed; `make gc YES=1` frees it" in said.stderr
    assert project.objects() == before and run.is_dir()
    assert sizes(said) == {
        "DVC's cache: model (3 files)": told(du(*unused, folder=project.folder)),
        ".cache/resume/qlora-train/ab12, interrupted": told(du(str(run), folder=project.folder)),
        "together": told(du(*unused, str(run), folder=project.folder)),
    }
    freed = project.keep_house("gc", "--yes")
    assert freed.returncode == 0 and sizes(freed) == sizes(said) and freed.stderr.endswith("freed\n")
    assert project.objects() == before - unused and not run.exists()
    assert "nothing" in project.keep_house("gc").stdout


def test_gc_keeps_what_can_still_be_checked_out(used: tuple[Standin, set[str]]) -> None:
    project, _ = used
    experiment = project.run("dvc", "exp", "list", "--name-only", "--all-commits").split()[-1]
    assert project.keep_house("gc", "--yes").returncode == 0
    assert (project.folder / "model/a.bin").stat().st_size == 6 * 1400
    assert "up to date" in project.run("dvc", "status")
    project.run("dvc", "exp", "apply", experiment)
    assert (project.folder / "model/a.bin").stat().st_size == 6 * 1300
    project.run("git", "stash", "--quiet")
    for where, size in (("a-tag", 1100), ("other", 1200), ("other~1", 1000)):
        project.run("git", "checkout", "--quiet", where)
        project.run("dvc", "checkout", "--quiet")
        assert (project.folder / "model/a.bin").stat().st_size == 6 * size


@pytest.fixture
def locked(project: Standin) -> Iterator[tuple[Path, Path]]:
    """A run under way, whose lock is held, and one that was interrupted."""
    running, stale = project.interrupted("scst/cd34"), project.interrupted("scst/ef56")
    with (running / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield running, stale


def test_gc_leaves_a_run_that_is_under_way(project: Standin, locked: tuple[Path, Path]) -> None:
    running, stale = locked
    said = project.keep_house("gc", "--yes")
    assert said.returncode == 0
    assert "stays, as its run is under way: .cache/resume/scst/cd34" in said.stderr
    assert (running / "checkpoint.safetensors").is_file() and not stale.exists()


def test_gc_leaves_a_cache_that_others_may_use(used: tuple[Standin, set[str]], tmp_path: Path) -> None:
    project, _ = used
    project.run("dvc", "cache", "dir", "--local", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere/files/md5/ab").mkdir(parents=True)
    (tmp_path / "elsewhere/files/md5/ab/cd").write_text("another's")
    said = project.keep_house("gc", "--yes")
    assert "is not this project's alone and is left as it is" in said.stderr and "nothing" in said.stdout
    assert (tmp_path / "elsewhere/files/md5/ab/cd").is_file()


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


def litter(project: Standin) -> list[str]:
    """What `make clean` takes away."""
    for name in (".cache/downloads/a/b.partial", ".cache/tracking/mix-1/x", ".cache/timings/y.csv", ".mypy_cache/z",
                 "models/adapters/.mix-1.partial/.a.partial", "data/.words.txt.partial", ".dvc/tmp/dvc.lock.torn",
                 "data/notes.partial"):  # fmt: skip
        (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (project.folder / name).write_bytes(b"x" * 9_000)
    half = ["models/adapters/.mix-1.partial", "data/.words.txt.partial", ".dvc/tmp/dvc.lock.torn"]
    return [".cache/downloads", ".cache/timings", ".mypy_cache", *half]


def test_clean_tells_and_takes_no_result(used: tuple[Standin, set[str]]) -> None:
    project, _ = used
    names, before = litter(project), project.objects()
    project.interrupted("qlora-train/ab12")
    names.append(".cache/resume")
    expected = {name: told(du(name, folder=project.folder)) for name in names}
    said = project.keep_house("clean")
    assert said.returncode == 0 and not said.stderr
    found = sizes(said)
    assert found.pop("together") and found == expected
    assert not any((project.folder / name).exists() for name in names)
    assert (project.folder / ".cache/tracking/mix-1/x").is_file(), "an offline run may still have to be sent"
    assert (project.folder / "data/notes.partial").is_file(), "not as an output's is named"
    assert project.objects() == before and "up to date" in project.run("dvc", "status")
    assert project.keep_house("clean").stdout.endswith("half written: nothing\n")


def test_clean_leaves_a_run_that_is_under_way(project: Standin, locked: tuple[Path, Path]) -> None:
    running, stale = locked
    litter(project)
    said = project.keep_house("clean")
    assert "stays, as its run is under way: .cache/resume/scst/cd34" in said.stderr
    assert (running / "checkpoint.safetensors").is_file() and (project.folder / ".cache/tracking/mix-1/x").is_file()
    assert not stale.exists() and not (project.folder / ".cache/downloads").exists()
    assert (project.folder / "data/.words.txt.partial").is_file()


def test_a_cache_that_is_a_link_loses_the_link_alone(project: Standin, tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "large/file").touch()
    (project.folder / ".cache").symlink_to(tmp_path / "large")
    assert project.keep_house("clean").returncode == 0
    assert not (project.folder / ".cache").is_symlink() and (tmp_path / "large/file").is_file()


def test_elsewhere_nothing_is_touched(project: Standin) -> None:
    (project.folder / "dvc.yaml").unlink()
    run = project.interrupted("scst/ef56")
    for command in ("clean", "gc"):
        said = project.keep_house(command)
        assert (said.returncode, said.stdout) == (1, "")
        assert said.stderr == "error: no dvc.yaml here; run this in the project's folder\n"
    assert run.is_dir()


def test_dvc_that_is_busy_or_broken_is_one_line(project: Standin) -> None:
    (project.folder / "dvc.yaml").write_text("stages: 3\n", encoding="utf-8")
    project.interrupted("scst/ef56")
    (project.folder / ".dvc/cache").mkdir(exist_ok=True)
    said = project.keep_house("gc", "--yes")
    assert said.returncode == 1 and said.stderr.startswith("error: dvc gc") and said.stderr.count("\n") == 1
    assert (project.folder / ".cache/resume/scst/ef56").is_dir()


def test_make_asks_for_it_and_clean_needs_no_packages(project: Standin) -> None:
    said = [subprocess.run(["make", "-n", "gc", *more], cwd=ROOT, capture_output=True, text=True).stdout
            for more in ([], ["YES=1"], ["YES=0"])]  # fmt: skip
    assert ["--yes" in one for one in said] == [False, True, False]
    litter(project)
    call = [sys.executable, "-S", "-m", "captioning.housekeeping", "clean"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run(call, cwd=project.folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "together" in done.stdout, done.stderr


def test_dvc_at_work_is_not_disturbed(used: tuple[Standin, set[str]]) -> None:
    project, _ = used
    before = project.objects()
    with (project.folder / ".dvc/tmp/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = project.keep_house("gc", "--yes")
    assert said.returncode == 1 and said.stderr.startswith("error: dvc gc") and said.stderr.count("\n") == 1
    assert "lock" in said.stderr and project.objects() == before


@pytest.mark.parametrize("command", [("clean",), ("gc", "--yes")])
def test_beside_a_stage_at_work_nothing_is_freed(command: tuple[str, ...], project: Standin) -> None:
    """Also where it works in an experiment's own folder: what it needs is named nowhere yet."""
    left, experiment = project.interrupted("scst@mix-1/abc"), project.folder / ".dvc/tmp/exps/tmp1"
    experiment.mkdir(parents=True)
    stage = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", "stages.scst"]
    with subprocess.Popen(stage, cwd=experiment, stdout=subprocess.PIPE, text=True) as at_work:
        at_work.stdout.readline()
        said = project.keep_house(*command)
        at_work.kill()
    assert said.returncode == 1 and f"(process {at_work.pid}) is under way; wait for it" in said.stderr
    assert left.exists()
    assert project.keep_house(*command).returncode == 0 and not left.exists()
