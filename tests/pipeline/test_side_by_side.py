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

from tests.helpers.jobs_project import (
    MEET,
    ROOT,
    STAGES,
    JobsProject,
    end_runner,
    is_alive,
    make_project,
    read_pid,
    wait_until,
)

HANG = "echo $$ > hang-{me}.number; sleep 600; touch {me}.txt"


@pytest.fixture(scope="module", autouse=True)
def importable() -> Iterator[None]:
    """Let the runner work in projects without their own `captioning`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def never_run(tmp_path_factory: pytest.TempPathFactory) -> JobsProject:
    return make_project(tmp_path_factory.mktemp("stand") / "project")


@pytest.fixture
def project(never_run: JobsProject, tmp_path: Path) -> JobsProject:
    return never_run.copy_to(tmp_path / "project")


def stages(command: str, *names: str) -> dict[str, object]:
    """Make independent stages; `{me}` and `{other}` in `command` are names."""
    pairs = zip(names, names[1:] + names[:1], strict=True)
    return {
        me: {"cmd": command.format(me=me, other=other), "deps": ["params.yaml"], "outs": [f"{me}.txt"]}
        for me, other in pairs
    }


def start_hanging(project: JobsProject) -> tuple[subprocess.Popen[str], list[int]]:
    """Start two stages that hang, and return the runner and the process numbers of their shells."""
    project.set_stages(stages(HANG, "a", "b") | STAGES)
    runner = project.start("--jobs", "2")
    return runner, [read_pid(project.folder / f"hang-{me}.number") for me in ("a", "b")]


def assert_next_run_works(project: JobsProject) -> None:
    project.set_stages(stages("touch {me}.txt", "a", "b"))
    project.jobs("--jobs", "2")


def test_the_lock_and_outputs_are_those_of_dvc(project: JobsProject, tmp_path: Path) -> None:
    """First from nothing; then with a dvc.lock, a changed value, one more row and one stage less."""
    twin, results = project.copy_to(tmp_path / "twin"), {}
    for copy, run in (project, lambda: project.jobs("--jobs", "2")), (twin, lambda: twin.dvc("repro")):
        run()
        first = copy.read_outputs()
        copy.set_params({"split.seed": 7, "seeds": [2, 1, 3]})
        run()
        results[copy] = first, copy.read_outputs()
    assert results[project] == results[twin]
    assert "x-3" in project.read("dvc.lock") and "up to date" in project.dvc("status").out


def test_an_experiment_is_that_of_dvc(project: JobsProject, tmp_path: Path) -> None:
    """The commands are those of `make experiment`, without `check`. Git must get the new seed's file, too."""
    changes, trees = ("split.seed=7", "seeds=[2,1]"), []
    steps = {"cmd": "echo ${item.seed} > ${item.seed}.csv", "outs": [{"${item.seed}.csv": {"cache": False}}]}
    project.set_stages(STAGES | {"steps": {"matrix": {"seed": "${seeds}"}} | steps})
    project.jobs("--jobs", "2")
    project.commit("Run")
    twin = project.copy_to(tmp_path / "twin")
    project.run(sys.executable, "-m", "pipeline.overrides", " ".join(changes))
    project.jobs("--jobs", "2")
    assert project.dvc("exp", "run").ran == []
    twin.experiment(*changes)
    assert project.read_outputs() == twin.read_outputs()
    for copy in (project, twin):
        (reference,) = copy.run("git", "for-each-ref", "--format=%(refname)", "refs/exps/*/*/*").out.split()
        trees.append(copy.run("git", "ls-tree", "-r", reference).out)
    assert trees[0] == trees[1] and "\t2.csv\n" in trees[0]


def test_targets_run_with_what_they_need_in_dvcs_order(project: JobsProject, tmp_path: Path) -> None:
    twin = project.copy_to(tmp_path / "twin")
    project.jobs("--jobs", "3", "part@c", "row@y-1")
    assert not (project.folder / "last.txt").exists()
    twin.dvc("repro", "--keep-going", "part@c", "row@y-1")
    assert project.read("dvc.lock") == twin.read("dvc.lock") != ""
    assert project.jobs("--jobs", "1", "part@b").started == ["part@b"]


def test_nothing_runs_twice(project: JobsProject) -> None:
    """Neither an unchanged stage, nor one in the run cache, nor one whose inputs came out the same."""
    project.jobs("--jobs", "2")
    before = project.read_outputs()
    second = project.jobs("--jobs", "2")
    assert second.err == "Data and pipelines are up to date.\n" and project.read_outputs() == before
    for path in ("dvc.lock", "part-a.txt", "rows/x-1.txt", "last.txt"):
        (project.folder / path).unlink()
    project.jobs("--jobs", "2")
    assert project.read_outputs() == before and "is cached" in project.read(".cache/logs/row@x-1.log")
    project.set_stages(STAGES | {"seed": STAGES["seed"] | {"cmd": "true; " + STAGES["seed"]["cmd"]}})
    third = project.jobs("--jobs", "2")
    assert third.started == ["seed"] and "\n1 stage ran\n" in third.err


def test_two_stages_run_at_a_time_and_never_three(project: JobsProject) -> None:
    busy = "test $(ls | grep -c here-) -lt 2 || exit 1; touch here-{me}; sleep 0.3; rm here-{me}; touch {me}.txt"
    project.set_stages(stages(busy, "a", "b", "c", "d", "e"))
    (project.folder / ".cache/logs/seconds.json").mkdir(parents=True)  # durations that cannot be saved do no harm
    project.jobs("--jobs", "2")
    project.set_stages(stages(f"({MEET}) && touch {{me}}.txt", "f", "g"))
    project.jobs("--jobs", "2")


def test_a_failure_blocks_only_what_depends_on_it(project: JobsProject, tmp_path: Path) -> None:
    refuse = "test ${item.name}${item.seed} != x1 -o -f fixed || { printf 'error: a\\n  b\\n' >&2; exit 3; }; "
    project.set_stages(STAGES | {"row": STAGES["row"] | {"cmd": refuse + STAGES["row"]["cmd"]}})
    project.set_params({"seeds": [1, 2]})
    twin = project.copy_to(tmp_path / "twin")
    failed = project.jobs("--jobs", "2", ok=False)
    assert failed.status == 1 and "Traceback" not in failed.all
    assert "(.cache/logs/row@x-1.log)\n    error: a\n      b\n" in failed.err
    assert re.search(r"^failed: row@x-1; not run because of it: last$", failed.err, re.MULTILINE)
    assert "7 of 9 stages" in failed.err and project.path_locks() == {}
    twin.dvc("repro", "--keep-going", ok=False)
    assert project.read_outputs() == twin.read_outputs()
    (project.folder / "fixed").touch()
    (twin.folder / "fixed").touch()
    assert project.jobs("--jobs", "2").started == ["row@x-1", "last"]
    twin.dvc("repro")
    assert project.read_outputs() == twin.read_outputs()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_jobs_and_records_nothing_incomplete(project: JobsProject, sent: int) -> None:
    runner, shells = start_hanging(project)
    commands = [child.pid for shell in shells for child in psutil.Process(shell).children()]
    status, output = end_runner(runner, sent)
    assert status == 128 + sent
    assert output.endswith("`make repro JOBS=2` goes on from there\n") and "Traceback" not in output
    assert not any(is_alive(process) for process in (*shells, *commands))
    assert project.path_locks() == {} and not (project.folder / "dvc.lock").exists()
    assert_next_run_works(project)


@pytest.mark.parametrize("with_jobs", [False, True])
def test_a_killed_runner_leaves_no_process_and_blocks_no_run(project: JobsProject, with_jobs: bool) -> None:
    runner, shells = start_hanging(project)
    jobs = [psutil.Process(shell).ppid() for shell in shells]
    for process in psutil.Process(runner.pid).children(recursive=True) if with_jobs else ():
        process.kill()
    end_runner(runner, signal.SIGKILL)
    wait_until(lambda: not any(is_alive(process) for process in (*shells, *jobs)))
    assert_next_run_works(project)


def test_a_killed_job_is_a_failure_and_its_command_ends(project: JobsProject) -> None:
    project.set_stages(stages(HANG, "a") | stages("touch {me}.txt", "b"))
    runner = project.start("--jobs", "2")
    shell = read_pid(project.folder / "hang-a.number")
    os.kill(psutil.Process(shell).ppid(), signal.SIGKILL)
    status, output = end_runner(runner)
    assert status == 1 and "failed: a after" in output and "ended by SIGKILL" in output and not is_alive(shell)
    assert (project.folder / "b.txt").exists()
    assert_next_run_works(project)


def test_a_stage_waits_while_another_dvc_uses_its_paths(project: JobsProject) -> None:
    project.set_stages(stages("touch {me}.txt", "a", "b"))
    with subprocess.Popen(["sleep", "600"]) as other:
        locks = {"read": {str(project.folder / "a.txt"): [{"pid": other.pid, "cmd": "dvc repro"}]}}
        (project.folder / ".dvc/tmp/rwlock").write_text(json.dumps(locks))
        runner, log = project.start("--jobs", "2"), project.folder / ".cache/logs/a.log"
        wait_until(lambda: log.is_file() and "is busy" in log.read_text() and (project.folder / "b.txt").is_file())
        first = log.stat().st_mtime_ns
        wait_until(lambda: log.stat().st_mtime_ns != first)
        other.kill()
    status, output = end_runner(runner)
    assert status == 0 and output.count("waiting for another DVC: a: ") == output.count("started: a\n") == 1, output
    assert "failed" not in output and (project.folder / "a.txt").exists() and project.path_locks() == {}


@pytest.mark.parametrize(("processes", "gpus"), [(1, {"GPU-a1", "3"}), (2, {"GPU-a1,3", "5,7"})])
def test_each_job_has_its_own_gpus(
    project: JobsProject, processes: int, gpus: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.set_params({"profiles.miniature.machine.device": "cuda", "launch.processes": processes})
    project.set_stages(stages(f"({MEET}) && echo $CUDA_VISIBLE_DEVICES > {{me}}.txt", "a", "b"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a1,3,5,7")
    project.jobs("--jobs", "2")
    assert {project.read(f"{me}.txt").strip() for me in "ab"} == gpus


def test_a_mistake_is_one_line(project: JobsProject, monkeypatch: pytest.MonkeyPatch) -> None:
    def assert_refused(text: str, *arguments: str) -> None:
        refused = project.jobs(*arguments, ok=False)
        assert refused.status == 1 and refused.err.count("\n") == 1 and text in refused.err

    assert_refused("JOBS: 'two'", "--jobs", "two")
    assert_refused("nowhere", "--jobs", "2", "nowhere")
    project.set_params({"profiles.miniature.machine.device": "cuda", "launch.processes": 4})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert_refused("JOBS=2: too few GPUs", "--jobs", "2")
    (project.folder / "dvc.yaml").write_text("stages: {a: [}\n")
    assert_refused("line 1", "--jobs", "2")
