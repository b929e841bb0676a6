"""Twenty random moments, three signals, both training stages: always the bytes of an undisturbed run."""

import resource
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.kills import STAGES, Killer, killers

KILLS = 20


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> list[Killer]:
    return killers(tmp_path_factory.mktemp("kills"))


def test_a_killed_training_ends_with_the_bytes_of_an_undisturbed_one(every: list[Killer]) -> None:
    with ThreadPoolExecutor(len(STAGES)) as pool:
        each = KILLS // len(STAGES)
        trials = [one for of in pool.map(lambda killer: list(killer.trials(each, seed=1)), every) for one in of]
    assert len(trials) == KILLS
    assert [(one.stage, one.signal, one.differing) for one in trials if not one.survived] == []
    assert [one for one in trials if "Traceback" in one.said] == []
    assert sum(one.resumed for one in trials) >= KILLS // 4, "hardly one went on from a state"
    assert {one.stage for one in trials if one.resumed} == set(STAGES)


@pytest.mark.parametrize("place", range(len(STAGES)))
def test_a_full_disk_is_one_line_and_costs_nothing(every: list[Killer], place: int) -> None:
    """A limit on the size of files stands in for it: states are larger than what was there before."""
    killer = every[place]
    killer.unrecord()
    limited = subprocess.run(
        killer.command, cwd=killer.project.folder, env=killer.project.environment(), text=True, capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)),
    )  # fmt: skip
    said = [line for line in limited.stderr.splitlines() if line.startswith("error: ")]
    assert limited.returncode != 0 and len(said) == 1, limited.stderr
    assert "make room, then give the command again" in said[0] and "Traceback" not in limited.stderr
    killer.project.run(*killer.command)
    assert killer.check() == []


def test_an_edit_while_a_stage_works_fails_it_by_name(every: list[Killer]) -> None:
    """Put back, the stage goes on from its last state to the bytes of an undisturbed run."""
    killer = every[0]
    killer.unrecord()
    code: Path = killer.project.folder / "captioning/qlora.py"
    own = code.read_bytes()
    running = subprocess.Popen(
        killer.command, cwd=killer.project.folder, env=killer.project.environment(), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    states = killer.project.folder / ".cache/resume" / killer.stage
    while running.poll() is None and not list(states.glob("*/0/step-*")):
        pass
    code.write_bytes(own + b"# edited\n")
    said = running.communicate()[0]
    assert running.returncode != 0
    assert "error: captioning/qlora.py: changed while this stage worked" in said
    assert killer.stage not in killer.project.yaml("dvc.lock")["stages"]
    code.write_bytes(own)
    again = killer.project.run(*killer.command)
    assert "going on from step" in again.err
    assert killer.check() == []


def test_what_finished_before_dvc_recorded_it_is_not_lost(every: list[Killer]) -> None:
    """DVC is killed between a stage's end and its record: the work is there. A stage forced in spite of its record
    begins anew."""
    killer = every[0]
    killer.unrecord()
    killer.project.run("python", "-m", "stages.qlora_train", "mix", "1")
    again = killer.project.run(*killer.command)
    assert "going on from step" in again.err
    assert killer.check() == []
    forced = killer.project.run(*killer.command, "--force")
    assert "going on from step" not in forced.err
    assert killer.check() == []
