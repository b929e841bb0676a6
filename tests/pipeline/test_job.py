"""A job ends with its commands, whatever ends it; a failure shows the stage's own error."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline import job
from pipeline.job import DONE, FAILED, Job, end_group, read_error
from tests.helpers.jobs_project import is_alive, read_pid, wait_until

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "GRACE", 0.5)


def start(work: Callable[[], bool], folder: Path) -> Job:
    return Job("stage", 0, work, folder / "stage.log", {"WORD": "to it"})


def start_stubborn(folder: Path) -> Job:
    """Start a job whose command ignores SIGTERM."""
    stubborn = start(lambda: subprocess.call([sys.executable, "-c", STUBBORN]) < 0, folder)
    wait_until(lambda: stubborn.log.is_file() and "up" in stubborn.log.read_text())
    return stubborn


def fail() -> bool:
    raise ValueError("no such row")


def test_the_output_of_a_job_and_its_commands_goes_to_its_log(tmp_path: Path) -> None:
    def work() -> bool:
        print("first", flush=True)
        return subprocess.call("echo $WORD; echo why >&2", shell=True) == 1 or fail()

    started = start(work, tmp_path)
    assert started.status() == FAILED
    assert started.log.read_text().splitlines() == ["first", "to it", "why", "ERROR: no such row"]


def test_a_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    stubborn = start_stubborn(tmp_path)
    stubborn.terminate()
    assert stubborn.status() == DONE, "the job itself lives on and cleans up"


def test_a_killed_job_takes_its_command_along(tmp_path: Path) -> None:
    stubborn = start_stubborn(tmp_path)
    (command,) = psutil.Process(stubborn.pid).children()
    stubborn.kill()
    assert stubborn.status() == -9 and not is_alive(command.pid)


def test_a_group_without_its_first_process_is_ended(tmp_path: Path) -> None:
    code = f'{sys.executable} -c "{STUBBORN}" & echo $! > {tmp_path / "number"}'
    first = subprocess.Popen(code, shell=True, start_new_session=True, stdout=subprocess.DEVNULL)
    first.wait()
    command = read_pid(tmp_path / "number")
    assert is_alive(command)
    end_group(first.pid)
    assert not is_alive(command)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Running:\nerror: 2 faults\n  a: 1\nERROR: failed to run: a, exited with 1\n", ["error: 2 faults", "  a: 1"]),
        ("\n".join(str(line) for line in range(40)), [str(line) for line in range(25, 40)]),
        ("bar: 10%\rbar: 20%\n\nKilled\n", ["bar: 10%", "bar: 20%", "Killed"]),
    ],
)
def test_a_failure_shows_the_stages_error_or_its_last_lines(text: str, lines: list[str], tmp_path: Path) -> None:
    (tmp_path / "stage.log").write_text(text)
    assert read_error(tmp_path / "stage.log") == lines
