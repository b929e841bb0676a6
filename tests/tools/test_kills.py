"""Both training stages, killed, edited under and out of disk at fixed points, end with the bytes of an undisturbed run.

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
from tools.kills import AGAIN, STAGES, Disturbed, wait_for_group

PATIENCE = 300.0  # seconds
TRAINING, REFINING = STAGES


@pytest.fixture
def disturbed(world: Project, tmp_path: Path) -> Callable[[str], Disturbed]:
    """Makes a clone of the world in which a stage is unrecorded and keeps every state."""

    def make(stage: str) -> Disturbed:
        project = world.clone(tmp_path / "project")
        project.set_params({"resume.every": 0.0})
        return Disturbed(project, stage)

    return make


class Ended(Exception):
    """A run was done before its signal reached it."""


def interrupt_after_a_state(stage: Disturbed, number: signal.Signals) -> None:
    """Signal a run that has kept a state; a run that was done before then is made anew."""
    for _ in range(5):
        run = Run(stage)
        run.until_a_state()
        with suppress(Ended):
            assert "interrupted; give the command again" in run.kill(number)
            return
        stage.unrecord()
    raise AssertionError("each run was done before its signal reached it")


class Run:
    """One run of a stage, disturbed when it has come to a certain point."""

    def __init__(self, stage: Disturbed) -> None:
        self.stage, self.log = stage, stage.project.folder.with_name("log.txt")
        with self.log.open("w") as file:
            self.process = stage.start(file)

    @property
    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def until(self, point: Callable[[], object]) -> None:
        """Wait until the run has come to `point`; fails where it ends before."""
        deadline = time.monotonic() + PATIENCE
        while not point():
            assert self.process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def until_it_begins(self) -> None:
        self.until(lambda: "Running stage" in self.output)

    def until_a_state(self) -> None:
        self.until(lambda: list(self.kept("step-*")))

    def until_it_goes_on(self) -> None:
        self.until(lambda: AGAIN in self.output)

    def until_the_work_is_done(self) -> None:
        self.until(lambda: list(self.kept(FINISHED)))

    def kept(self, name: str) -> list[Path]:
        """What the stage has kept to go on from."""
        return list((self.stage.project.folder / ".cache/resume" / self.stage.stage).rglob(name))

    def kill(self, number: signal.Signals) -> str:
        """Send a signal to all processes of the run, and put dvc.lock right; what the run had to say."""
        os.killpg(self.process.pid, number)
        status = self.process.wait()
        wait_for_group(self.process.pid)
        self.stage.mend()
        if status == 0:
            raise Ended
        self.assert_unrecorded()
        return self.output

    def fail(self) -> str:
        """Wait for the end of a run that fails; what it had to say."""
        assert self.process.wait() != 0
        self.assert_unrecorded()
        return self.output

    def assert_unrecorded(self) -> None:
        assert self.stage.stage not in self.stage.project.yaml("dvc.lock")["stages"]
        assert "Traceback" not in self.output


def fill_the_disk(stage: Disturbed, commands: Path) -> None:
    """A limit on the size of the stage's files stands in for it; DVC itself is not limited."""
    commands.mkdir()
    python = commands / "python"
    python.write_text(f'#!/bin/bash\nulimit -f 300\nexec {sys.executable} "$@"\n')  # kB
    python.chmod(0o755)
    environment = stage.project.environment()
    environment["PATH"] = f"{commands}{os.pathsep}{environment['PATH']}"
    limited = subprocess.run(
        stage.command, cwd=stage.project.folder, env=environment, text=True, capture_output=True, check=False
    )
    errors = [line for line in limited.stderr.splitlines() if line.startswith("error: ")]
    assert limited.returncode != 0 and len(errors) == 1, limited.stderr
    assert "make room, then give the command again" in errors[0] and "Traceback" not in limited.stderr


def edit_the_code(run: Run) -> None:
    """The stage fails by the file's name; the file is put back."""
    code = run.stage.project.folder / "captioning/adapters/lora.py"
    own = code.read_bytes()
    code.write_bytes(own + b"# edited\n")
    assert "error: captioning/adapters/lora.py: changed while this stage worked" in run.fail()
    code.write_bytes(own)


def test_a_training_survives_whatever_disturbs_it(disturbed: Callable[[str], Disturbed], tmp_path: Path) -> None:
    """A full disk, SIGTERM while it starts, SIGINT after its first state, an edit of its code, and SIGKILL between its
    end and DVC's record: the work is still there, and the bytes are those of the world's run. A stage that is forced
    in spite of its record begins anew."""
    stage = disturbed(TRAINING)
    fill_the_disk(stage, tmp_path / "commands")
    run = Run(stage)
    run.until_it_begins()
    run.kill(signal.SIGTERM)
    interrupt_after_a_state(stage, signal.SIGINT)
    run = Run(stage)
    run.until_it_goes_on()
    edit_the_code(run)
    run = Run(stage)
    run.until_the_work_is_done()
    run.kill(signal.SIGKILL)
    again = stage.project.run(*stage.command)
    assert AGAIN in again.err and stage.check() == []
    forced = stage.project.run(*stage.command, "--force")
    assert AGAIN not in forced.err and stage.check() == []


def test_self_critical_training_survives_whatever_disturbs_it(
    disturbed: Callable[[str], Disturbed], tmp_path: Path
) -> None:
    """A full disk, SIGTERM after its first state, and SIGKILL when it has gone on from there."""
    stage = disturbed(REFINING)
    fill_the_disk(stage, tmp_path / "commands")
    interrupt_after_a_state(stage, signal.SIGTERM)
    run = Run(stage)
    run.until_it_goes_on()
    run.kill(signal.SIGKILL)
    again = stage.project.run(*stage.command)
    assert AGAIN in again.err and stage.check() == []
