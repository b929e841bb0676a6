"""A small DVC project to keep house in, with results that are needed and one that nothing needs."""

import os
import shutil
import subprocess
import sys
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
