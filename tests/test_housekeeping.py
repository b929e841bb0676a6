"""`make gc` and `make clean` tell what they free, item by item, as du counts it, and take nothing that is needed."""

import fcntl
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.housekept import ROOT, Said, Standin, project, template, used

__all__ = ["project", "template", "used"]


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
