"""A job's end: whoever does not obey is killed, a group without its first process too; what is shown of a failure."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipeline import job
from pipeline.job import BUSY, DONE, FAILED, UNCHANGED, Busy, Job, end_group, ended, excerpt
from tests.helpers.jobs_project import lives, number, until

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "GRACE", 0.5)


def run(work: object, folder: Path) -> Job:
    return Job("stage", 0, work, folder / "stage.log", {"GIVEN": "to it"})  # type: ignore[arg-type]


def broken() -> bool:
    raise ValueError("no such row")


def held_up() -> bool:
    raise Busy("another is at work")


ENDS = [(lambda: True, DONE), (lambda: False, UNCHANGED), (broken, FAILED), (held_up, BUSY)]


@pytest.mark.parametrize("work, status", ENDS)
def test_what_became_of_it(work: object, status: int, tmp_path: Path) -> None:
    one = run(work, tmp_path)
    until(lambda: ended([one], 0.1) == [one])
    assert one.status() == status


def test_its_words_and_those_of_its_commands_go_to_its_log(tmp_path: Path) -> None:
    def work() -> bool:
        print("begun", flush=True)
        return subprocess.call("echo $GIVEN; echo why >&2", shell=True) == 1 or broken()

    one = run(work, tmp_path)
    assert one.status() == FAILED
    assert one.log.read_text().splitlines() == ["begun", "to it", "why", "ERROR: no such row"]


def test_a_command_that_does_not_obey_is_killed(tmp_path: Path) -> None:
    one = run(lambda: subprocess.call([sys.executable, "-c", STUBBORN]) < 0, tmp_path)
    until(lambda: one.log.is_file() and "up" in one.log.read_text())
    one.end()
    assert one.status() == DONE, "the job itself lives on and cleans up"


def test_a_second_thought_kills_all_of_it(tmp_path: Path) -> None:
    one = run(lambda: subprocess.call([sys.executable, "-c", STUBBORN]) < 0, tmp_path)
    until(lambda: one.log.is_file() and "up" in one.log.read_text())
    (command,) = psutil.Process(one.number).children()
    one.kill()
    assert one.status() == -9 and not lives(command.pid)


def test_what_is_left_of_a_group_is_ended(tmp_path: Path) -> None:
    """Its first process is gone already."""
    left = f'{sys.executable} -c "{STUBBORN}" & echo $! > {tmp_path / "number"}'
    first = subprocess.Popen(left, shell=True, start_new_session=True, stdout=subprocess.DEVNULL)
    first.wait()
    command = number(tmp_path / "number")
    assert lives(command)
    end_group(first.pid)
    assert not lives(command)


def test_of_a_failure_its_own_error_whole_or_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "stage.log"
    log.write_text(
        "Running stage 'a':\nerror: params.yaml: 2 fault(s)\n  a: 1\n  b: 2\nERROR: failed to run: a, exited with 1\n"
    )
    assert excerpt(log) == ["error: params.yaml: 2 fault(s)", "  a: 1", "  b: 2"]
    log.write_text("\n".join(f"line {place}" for place in range(40)))
    assert excerpt(log)[0] == "line 25" and excerpt(log)[-1] == "line 39"
    log.write_text("bar: 10%\rbar: 20%\n\nKilled\n")
    assert excerpt(log) == ["bar: 10%", "bar: 20%", "Killed"]
