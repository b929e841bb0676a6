"""Two stages at a time leave what one after the other leaves; a failure, a signal or a kill loses nothing else."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.helpers.jobs_project import MEET, ROOT, STAGES, Stand, finish, lives, number, stand, until

HOLD = "echo $$ > held-{me}.number; sleep 600; touch {me}.txt"  # until it is ended
LINUX = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are shared out on Linux")


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """The runner runs in projects that have no captioning of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def never_run(tmp_path_factory: pytest.TempPathFactory) -> Stand:
    return stand(tmp_path_factory.mktemp("stand") / "project")


@pytest.fixture
def project(never_run: Stand, tmp_path: Path) -> Stand:
    return never_run.twin(tmp_path / "project")


def pair(command: str, *names: str) -> dict[str, object]:
    """Stages beside one another: `{me}` and `{other}` in `command` are their names."""
    return {me: {"cmd": command.format(me=me, other=other), "deps": ["params.yaml"], "outs": [f"{me}.txt"]}
            for me, other in zip(names, names[1:] + names[:1], strict=True)}  # fmt: skip


def test_the_same_lock_and_outputs_as_one_after_the_other(project: Stand, tmp_path: Path) -> None:
    """From nothing; then with a dvc.lock that is there, a changed value, a row more and a stage less."""
    twin, left = project.twin(tmp_path / "twin"), {}
    for one, run in (project, lambda: project.jobs("--jobs", "2")), (twin, lambda: twin.dvc("repro")):
        run()
        first = one.written()
        one.set_params({"split.seed": 7, "seeds": [2, 1, 3]})
        run()
        left[one] = first, one.written()
    assert left[project] == left[twin]
    assert "x-3" in project.read("dvc.lock") and "up to date" in project.dvc("status").out


def test_three_of_a_kind_at_a_time_in_dvcs_order(project: Stand, tmp_path: Path) -> None:
    """Of targets, too; whatever finishes first."""
    twin = project.twin(tmp_path / "twin")
    project.jobs("--jobs", "3", "part@c", "row@y-1")
    assert list(project.yaml("dvc.lock")["stages"]) != [] and not (project.folder / "last.txt").exists()
    twin.dvc("repro", "--keep-going", "part@c", "row@y-1")
    assert project.yaml("dvc.lock") == twin.yaml("dvc.lock")


def test_what_is_done_is_not_run_again(project: Stand) -> None:
    """Nor what the run cache holds."""
    project.jobs("--jobs", "2")
    before = project.written()
    again = project.jobs("--jobs", "2")
    assert again.err == "Data and pipelines are up to date.\n" and project.written() == before
    for path in ("dvc.lock", "part-a.txt", "rows/x-1.txt", "last.txt"):
        (project.folder / path).unlink()
    project.jobs("--jobs", "2")
    assert project.written() == before and "is cached" in project.read(".cache/logs/row@x-1.log")


def test_an_output_that_came_out_the_same_starts_nothing(project: Stand) -> None:
    project.jobs("--jobs", "2")
    project.set_stages(STAGES | {"seed": STAGES["seed"] | {"cmd": "true; " + STAGES["seed"]["cmd"]}})
    again = project.jobs("--jobs", "2")
    assert re.findall(r"^begun: (.*)$", again.err, re.MULTILINE) == ["seed"] and "\n1 stage ran\n" in again.err


def test_two_stages_meet_and_never_three(project: Stand) -> None:
    busy = "test $(ls | grep -c here-) -lt 2 || exit 1; touch here-{me}; sleep 0.3; rm here-{me}; touch {me}.txt"
    project.set_stages(pair(busy, "a", "b", "c", "d", "e"))
    project.jobs("--jobs", "2")
    project.set_stages(pair(f"({MEET}) && touch {{me}}.txt", "f", "g"))
    project.jobs("--jobs", "2")


def test_a_failure_loses_only_what_depends_on_it(project: Stand, tmp_path: Path) -> None:
    refuse = "test ${item.name}${item.seed} != x1 -o -f mended || { printf 'error: a\\n  b\\n' >&2; exit 3; }; "
    project.set_stages(STAGES | {"row": STAGES["row"] | {"cmd": refuse + STAGES["row"]["cmd"]}})
    project.set_params({"seeds": [1, 2]})
    twin = project.twin(tmp_path / "twin")
    done = project.jobs("--jobs", "2", ok=False)
    assert done.status == 1 and "Traceback" not in done.all
    assert "(.cache/logs/row@x-1.log)\n    error: a\n      b\n" in done.err
    assert re.search(r"^failed: row@x-1; not run for it: last$", done.err, re.MULTILINE)
    assert "7 of 9 stages" in done.err and project.held() == {}
    twin.dvc("repro", "--keep-going", ok=False)
    assert project.written() == twin.written()
    (project.folder / "mended").touch()
    (twin.folder / "mended").touch()
    again = project.jobs("--jobs", "2")
    assert re.findall(r"^begun: (.*)$", again.err, re.MULTILINE) == ["row@x-1", "last"]
    twin.dvc("repro")
    assert project.written() == twin.written()


@pytest.mark.parametrize("given", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_jobs_and_records_nothing_by_halves(project: Stand, given: int) -> None:
    project.set_stages(pair(HOLD, "a", "b") | STAGES)
    runner = project.start("--jobs", "2")
    shells = [number(project.folder / f"held-{me}.number") for me in ("a", "b")]
    commands = [one for shell in shells for one in (shell, *(child.pid for child in psutil.Process(shell).children()))]
    status, said = finish(runner, given)
    assert (
        status == 128 + given and said.endswith("`make repro JOBS=2` goes on from there\n") and "Traceback" not in said
    )
    assert not any(lives(one) for one in commands)
    assert project.held() == {} and not (project.folder / "dvc.lock").exists()
    project.set_stages(STAGES)
    project.jobs("--jobs", "2")


def test_a_killed_runner_leaves_nobody_at_work_and_blocks_nobody(project: Stand) -> None:
    project.set_stages(pair(HOLD, "a", "b"))
    runner = project.start("--jobs", "2")
    shells = [number(project.folder / f"held-{me}.number") for me in ("a", "b")]
    jobs = [psutil.Process(shell).ppid() for shell in shells]
    finish(runner, signal.SIGKILL)
    until(lambda: not any(lives(one) for one in (*shells, *jobs)))
    assert project.held() == {}
    project.set_stages(pair("touch {me}.txt", "a", "b"))
    project.jobs("--jobs", "2")


def test_a_killed_job_is_a_failure_and_its_command_ends(project: Stand) -> None:
    project.set_stages(pair(HOLD, "a") | pair("touch {me}.txt", "b"))
    runner = project.start("--jobs", "2")
    shell = number(project.folder / "held-a.number")
    os.kill(psutil.Process(shell).ppid(), signal.SIGKILL)
    status, said = finish(runner)
    assert status == 1 and "failed: a after" in said and "ended by SIGKILL" in said and not lives(shell)
    assert (project.folder / "b.txt").exists() and "a" in json.dumps(project.held())
    project.set_stages(pair("touch {me}.txt", "a", "b"))
    again = project.jobs("--jobs", "2")
    assert "killed" not in again.all and project.held() == {}


def test_killed_all_at_once_blocks_nobody(project: Stand) -> None:
    project.set_stages(pair(HOLD, "a", "b"))
    runner = project.start("--jobs", "2")
    shells = [number(project.folder / f"held-{me}.number") for me in ("a", "b")]
    for one in psutil.Process(runner.pid).children(recursive=True):
        one.kill()
    finish(runner, signal.SIGKILL)
    until(lambda: not any(lives(shell) for shell in shells))
    project.set_stages(pair("touch {me}.txt", "a", "b"))
    project.jobs("--jobs", "2")


def test_a_stage_that_another_dvc_holds_up_waits_for_it(project: Stand) -> None:
    """Its output is read elsewhere; other stages go on."""
    project.set_stages(pair("touch {me}.txt", "a", "b"))
    with subprocess.Popen(["sleep", "600"]) as other:
        held = {"read": {str(project.folder / "a.txt"): [{"pid": other.pid, "cmd": "dvc repro"}]}}
        (project.folder / ".dvc/tmp/rwlock").write_text(json.dumps(held))
        runner, log = project.start("--jobs", "2"), project.folder / ".cache/logs/a.log"
        until(lambda: log.is_file() and "is busy" in log.read_text() and (project.folder / "b.txt").is_file())
        first = log.stat().st_mtime_ns
        until(lambda: log.stat().st_mtime_ns != first)
        other.kill()
    status, said = finish(runner)
    assert status == 0 and said.count("waiting for another DVC: a: ") == said.count("begun: a\n") == 1, said
    assert "failed" not in said and (project.folder / "a.txt").exists() and project.held() == {}


@LINUX
def test_each_job_has_cores_of_its_own_and_all_when_it_is_alone(project: Stand) -> None:
    cores = os.sched_getaffinity(0)
    if len(cores) < 2:
        pytest.skip("one core")
    said = f"{sys.executable} -c 'import os; print(*sorted(os.sched_getaffinity(0)), os.environ[\"OMP_NUM_THREADS\"])'"
    project.set_stages(pair(f"({MEET}) && sleep 2; {said} > {{me}}.txt", "a", "b"))
    project.jobs("--jobs", "2")
    project.set_stages({"c": {"cmd": f"sleep 2; {said} > c.txt", "deps": ["a.txt"], "outs": ["c.txt"]}})
    project.jobs("--jobs", "2")
    shares = {me: [int(core) for core in project.read(f"{me}.txt").split()] for me in "abc"}
    threads = {me: cores.pop() for me, cores in shares.items()}
    assert sorted(shares["a"] + shares["b"]) == sorted(cores) == shares["c"]
    assert set(threads.values()) == {int(os.environ.get("OMP_NUM_THREADS", len(cores)))}


@pytest.mark.parametrize("processes, seen", [(1, {"GPU-a1", "3"}), (2, {"GPU-a1,3", "5,7"})])
def test_each_job_has_gpus_of_its_own(project: Stand, processes: int, seen: set[str]) -> None:
    project.set_params({"profiles.miniature.machine.device": "cuda", "launch.processes": processes})
    project.set_stages(pair(f"({MEET}) && echo $CUDA_VISIBLE_DEVICES > {{me}}.txt", "a", "b"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a1,3,5,7")
        project.jobs("--jobs", "2")
        assert {project.read(f"{me}.txt").strip() for me in "ab"} == seen
        project.set_params({"launch.processes": 4})
        refused = project.jobs("--jobs", "2", ok=False)
    assert refused.status == 1 and refused.err.startswith("error: JOBS=2: ") and refused.err.count("\n") == 1


def test_where_the_seconds_cannot_be_written_the_run_goes_on(project: Stand) -> None:
    project.set_stages(pair("touch {me}.txt", "a", "b"))
    (project.folder / ".cache/logs/seconds.json").mkdir(parents=True)
    assert "2 stages ran" in project.jobs("--jobs", "2").err


def test_a_mistake_is_one_line(project: Stand) -> None:
    for arguments, said in (["--jobs", "two"], "JOBS: 'two'"), (["--jobs", "2", "nowhere"], "nowhere"):
        refused = project.jobs(*arguments, ok=False)
        assert refused.status == 1 and refused.err.count("\n") == 1 and said in refused.err
    (project.folder / "dvc.yaml").write_text("stages: {a: [}\n")
    refused = project.jobs("--jobs", "2", ok=False)
    assert refused.status == 1 and refused.err.count("\n") == 1 and "line 1" in refused.err


def test_one_at_a_time(project: Stand) -> None:
    assert project.jobs("--jobs", "1", "part@b").begun == ["seed", "part@b"]
