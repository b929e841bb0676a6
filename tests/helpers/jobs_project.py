"""A small DVC project of shell commands, to run `pipeline.jobs` in: a foreach, a matrix, a folder."""

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

TIMEOUT = 30.0  # seconds
MEET = "touch here-{me}; for i in $(seq 300); do test -f here-{other} && exit 0; sleep 0.05; done; echo alone; exit 1"
ROW = "${item.name}-${item.seed}"
STAGES: dict[str, Any] = {
    "last": {  # first in the file, last to run
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
}


class JobsProject(Project):
    """The project and its runner."""

    def jobs(self, *arguments: str, ok: bool = True) -> Finished:
        return self.run(sys.executable, "-m", "pipeline.jobs", *arguments, ok=ok)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the runner."""
        command = [sys.executable, "-m", "pipeline.jobs", *arguments]
        return subprocess.Popen(command, cwd=self.folder, text=True, stderr=subprocess.PIPE, start_new_session=True)

    def set_stages(self, stages: dict[str, Any]) -> None:
        with (self.folder / "dvc.yaml").open("w", encoding="utf-8") as file:
            YAML().dump({"stages": stages}, file)

    def set_params(self, values: dict[str, Any]) -> None:
        set_values(self.folder / "params.yaml", values)

    def copy_to(self, folder: Path) -> "JobsProject":
        shutil.copytree(self.folder, folder, symlinks=True)
        return JobsProject(folder)

    def read_outputs(self) -> dict[str, str]:
        """Return the content of dvc.lock and of what the stages wrote, by path."""
        paths = [path for path in self.folder.rglob("*.txt") if ".dvc" not in path.parts]
        return {str(path.relative_to(self.folder)): path.read_text() for path in paths} | {"": self.read("dvc.lock")}

    def path_locks(self) -> Any:
        """Return DVC's locks on paths."""
        path = self.folder / ".dvc/tmp/rwlock"
        return {key: value for key, value in json.loads(path.read_text()).items() if value}


def make_project(folder: Path) -> JobsProject:
    """Make a project that has never run."""
    (folder / "rows").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", folder / "params.yaml")
    (folder / ".gitignore").write_text("*.txt\n.cache/\nhere-*\n")
    (folder / "rows/.gitignore").write_text("*.txt\n")
    project = JobsProject(folder)
    project.set_stages(STAGES)
    project.run("git", "init", "--quiet")
    project.run("dvc", "init", "--quiet")
    return project


def read_pid(path: Path) -> int:
    """Wait for the process number that a command writes to `path`."""
    wait_until(lambda: path.is_file() and path.read_text().endswith("\n"))
    return int(path.read_text())


def is_alive(process: int) -> bool:
    return psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until `condition` holds; fail after `TIMEOUT`."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def end_runner(runner: subprocess.Popen[str], number: int | None = None) -> tuple[int, str]:
    """Send a signal, if any, and return the exit status and the output."""
    if number is not None:
        os.kill(runner.pid, signal.Signals(number))
    output = runner.communicate(timeout=2 * TIMEOUT)[1]
    return runner.returncode, output
