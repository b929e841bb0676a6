"""Both training stages, disturbed at fixed points, end with the bytes of an undisturbed run.

Random moments are tried by `python -m tools.kills --kills 100`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from captioning.runtime.resume import FINISHED
from tests.helpers.project_copy import Project
from tools.kills import RESUMED, STAGES, DisturbedStage, wait_for_group

TIMEOUT = 300.0  # seconds
TRAINING, REFINING = STAGES
MakeStage = Callable[[str], DisturbedStage]


@pytest.fixture
def make_stage(world: Project, tmp_path: Path) -> MakeStage:
    """Clone the world, remove a stage's record, and let the stage save a state at each step."""

    def make(stage: str) -> DisturbedStage:
        project = world.clone(tmp_path / "project")
        project.set_params({"resume.every": 0.0})
        return DisturbedStage(project, stage)

    return make


class EndedEarly(Exception):
    """A run ended before its signal reached it."""


class Run:
    """A run of a stage, disturbed when it has reached a certain point."""

    def __init__(self, stage: DisturbedStage) -> None:
        self.stage, self.log = stage, stage.project.folder.with_name("log.txt")
        with self.log.open("w") as file:
            self.process = stage.start(file)

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def wait_until(self, has_reached: Callable[[], object]) -> None:
        """Wait for a point of the run. Fails if the run ends before it."""
        deadline = time.monotonic() + TIMEOUT
        while not has_reached():
            assert self.process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def wait_for_output(self, text: str) -> None:
        self.wait_until(lambda: text in self.output)

    def wait_for_file(self, pattern: str) -> None:
        """Wait for a file among the stage's states."""
        folder = self.stage.project.folder / ".cache/resume" / self.stage.stage

        def is_there() -> bool:
            with suppress(FileNotFoundError):  # the run removes older states
                return any(folder.rglob(pattern))
            return False

        self.wait_until(is_there)

    def kill(self, number: signal.Signals) -> str:
        """Send a signal to all processes of the run, and restore dvc.lock; return the run's output."""
        os.killpg(self.process.pid, number)
        status = self.process.wait()
        wait_for_group(self.process.pid)
        self.stage.restore_lock()
        if status == 0:
            raise EndedEarly
        self.assert_unrecorded()
        return self.output

    def assert_unrecorded(self) -> None:
        assert self.stage.stage not in self.stage.project.yaml("dvc.lock")["stages"]
        assert "Traceback" not in self.output


def kill_after_a_state(stage: DisturbedStage, number: signal.Signals) -> str:
    """Kill a run that has saved a state, and return its output; repeat if the run ended before the signal."""
    for _ in range(5):
        run = Run(stage)
        run.wait_for_file("step-*")
        with suppress(EndedEarly):
            return run.kill(number)
        stage.unrecord()
    raise AssertionError("each run ended before its signal reached it")


def run_on_a_full_disk(stage: DisturbedStage, commands: Path) -> None:
    """A limit on the size of the stage's files stands in for a full disk; DVC itself is not limited."""
    commands.mkdir()
    python = commands / "python"
    python.write_text(f'#!/bin/bash\nulimit -f 300\nexec {sys.executable} "$@"\n')  # kB
    python.chmod(0o755)
    environment = stage.project.environment()
    environment["PATH"] = f"{commands}{os.pathsep}{environment['PATH']}"
    run = subprocess.run(stage.command, cwd=stage.project.folder, env=environment, text=True, capture_output=True)
    errors = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert run.returncode != 0 and len(errors) == 1, run.stderr
    assert "make room, then give the command again" in errors[0] and "Traceback" not in run.stderr


def edit_the_code(run: Run) -> None:
    """Edit a source file during the run: the stage fails and names it."""
    path = run.stage.project.folder / "captioning/adapters/lora.py"
    content = path.read_bytes()
    path.write_bytes(content + b"# edited\n")
    assert run.process.wait() != 0
    run.assert_unrecorded()
    assert "error: captioning/adapters/lora.py: changed while this stage worked" in run.output
    path.write_bytes(content)


def test_a_supervised_training_survives_each_disturbance(make_stage: MakeStage, tmp_path: Path) -> None:
    """A full disk, SIGTERM at the start, SIGINT after the first state, an edit of the code, and SIGKILL between the
    training's end and DVC's record."""
    stage = make_stage(TRAINING)
    run_on_a_full_disk(stage, tmp_path / "commands")
    run = Run(stage)
    run.wait_for_output("Running stage")
    run.kill(signal.SIGTERM)
    assert "interrupted; give the command again" in kill_after_a_state(stage, signal.SIGINT)
    run = Run(stage)
    run.wait_for_output(RESUMED)
    edit_the_code(run)
    run = Run(stage)
    run.wait_for_file(FINISHED)
    run.kill(signal.SIGKILL)
    last = stage.project.run(*stage.command)
    assert RESUMED in last.err and stage.different_files() == []


def test_scst_survives_a_kill(make_stage: MakeStage) -> None:
    """SIGKILL after the first state. SIGTERM and SIGINT are handled as in the other training."""
    stage = make_stage(REFINING)
    kill_after_a_state(stage, signal.SIGKILL)
    last = stage.project.run(*stage.command)
    assert RESUMED in last.err and stage.different_files() == []
