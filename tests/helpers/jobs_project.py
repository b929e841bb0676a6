"""A small DVC project whose stages are shell commands, to try `pipeline.jobs` on: a foreach, a matrix, a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from ruamel.yaml import YAML

from benchmarks.copies import set_values
from tests.helpers.project_copy import ROOT, Finished, Project

PATIENCE = 30.0  # seconds
MEET = "touch here-{me}; for i in $(seq 300); do test -f here-{other} && exit 0; sleep 0.05; done; echo alone; exit 1"
ROW = "${item.name}-${item.seed}"
STAGES: dict[str, Any] = {
    "last": {  # named first, done last
        "cmd": "cat rows/*.txt part-b.txt > last.txt",
        "deps": ["rows", "part-b.txt", "part-c.txt"],
        "outs": ["last.txt"],
    },
    "part": {
        "foreach": {"a": {"sleep": 0.4}, "b": {"sleep": 0.0}, "c": {"sleep": 0.2}},
        "do": {
            "cmd": "sleep ${item.sleep}; cat seed.txt > part-${key}.txt",
            "deps": ["seed.txt"],
            "outs": ["part-${key}.txt"],
        },
    },
    "row": {
        "matrix": {"name": ["x", "y"], "seed": "${seeds}"},
        "cmd": f"sleep 0.$((RANDOM % 4)); (cat part-a.txt; echo {ROW}) > rows/{ROW}.txt",
        "deps": ["part-a.txt"],
        "outs": [f"rows/{ROW}.txt"],
    },
    "seed": {"cmd": "echo ${split.seed} > seed.txt", "params": ["split.seed"], "outs": ["seed.txt"]},
}  # fmt: skip


class Stand(Project):
    """The project, and its runner."""

    def jobs(self, *arguments: str, ok: bool = True) -> Finished:
        return self.run(sys.executable, "-m", "pipeline.jobs", *arguments, ok=ok)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The runner, under way."""
        command = [sys.executable, "-m", "pipeline.jobs", *arguments]
        return subprocess.Popen(command, cwd=self.folder, text=True, stderr=subprocess.PIPE, start_new_session=True)

    def set_stages(self, stages: dict[str, Any]) -> None:
        with (self.folder / "dvc.yaml").open("w", encoding="utf-8") as file:
            YAML().dump({"stages": stages}, file)

    def set_params(self, values: dict[str, Any]) -> None:
        set_values(self.folder / "params.yaml", values)

    def twin(self, folder: Path) -> "Stand":
        shutil.copytree(self.folder, folder, symlinks=True)
        return Stand(folder)

    def written(self) -> dict[str, str]:
        """dvc.lock and what the stages wrote, by path."""
        found = [path for path in self.folder.rglob("*.txt") if ".dvc" not in path.parts]
        return {str(path.relative_to(self.folder)): path.read_text() for path in found} | {"": self.read("dvc.lock")}

    def held(self) -> Any:
        """What DVC's locks on paths hold."""
        path = self.folder / ".dvc/tmp/rwlock"
        return {key: value for key, value in json.loads(path.read_text()).items() if value}


def stand(folder: Path) -> Stand:
    """The project, never run."""
    (folder / "rows").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    (folder / ".gitignore").write_text("*.txt\n.cache/\nhere-*\n")
    (folder / "rows/.gitignore").write_text("*.txt\n")
    project = Stand(folder)
    project.set_stages(STAGES)
    project.run("git", "init", "--quiet")
    project.run("dvc", "init", "--quiet")
    return project


def number(path: Path) -> int:
    """The process number that a command has left at `path`."""
    until(lambda: path.is_file() and path.read_text().endswith("\n"))
    return int(path.read_text())


def lives(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def until(true: Callable[[], bool]) -> None:
    """Wait for it; fails after `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def finish(runner: subprocess.Popen[str], number: int | None = None) -> tuple[int, str]:
    """Send a signal, if any; exit status and what it said."""
    if number is not None:
        os.kill(runner.pid, signal.Signals(number))
    said = runner.communicate(timeout=2 * PATIENCE)[1]
    return runner.returncode, said
