"""Cores and GPUs of each job: all of them, once; too few GPUs are one line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from captioning.base.errors import UserError
from captioning.params.load import Params, load_params
from pipeline.shares import confine, own_cores, share_cores, share_gpus, visible_gpus

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "cores, jobs, shares",
    [
        ([0, 1], 2, [(0,), (1,)]),
        ([0, 1], 1, [(0, 1)]),
        (range(16), 3, [tuple(range(5)), tuple(range(5, 10)), tuple(range(10, 16))]),
        ([4, 6, 7], 2, [(4,), (6, 7)]),  # those this process may use
        ([0, 1], 5, [(0,), (1,), (0,), (1,), (0,)]),
        ([], 2, [(), ()]),  # the system does not say
        ([0, 1], 0, []),
    ],
)
def test_shares_of_cores(cores: list[int], jobs: int, shares: list[tuple[int, ...]]) -> None:
    assert share_cores(cores, jobs) == shares


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_threads_that_run_already_are_moved_and_what_they_start() -> None:
    assert set(own_cores()) == os.sched_getaffinity(0)
    code = (
        "import os, subprocess, sys, threading\n"
        "threading.Thread(target=input).start(); print(flush=True)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=0)\n"
        "child.wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    confine(process.pid, own_cores()[:1])
    threads = [int(thread) for thread in os.listdir(f"/proc/{process.pid}/task")]
    assert len(threads) >= 2 and all(os.sched_getaffinity(thread) == set(own_cores()[:1]) for thread in threads)
    process.communicate(b"\n\n")
    confine(process.pid, own_cores())  # it has ended


def params(device: str, processes: int) -> Params:
    loaded = load_params(ROOT / "params.yaml").model_dump(by_alias=True)
    loaded["profiles"]["miniature"]["machine"]["device"] = device
    loaded["launch"]["processes"] = processes
    return Params.model_validate(loaded)


def test_on_a_cpu_nobody_asks_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.shares.visible_gpus", lambda: pytest.fail("asked"))
    assert share_gpus(params("cpu", 2), 3) == [{}, {}, {}]


@pytest.mark.parametrize(
    "visible, processes, jobs, shares",
    [
        ("0,1", 1, 2, ["0", "1"]),
        ("GPU-8f, MIG-3a ,5", 1, 3, ["GPU-8f", "MIG-3a", "5"]),
        ("3,1,2,0,7", 2, 2, ["3,1", "2,0"]),
    ],
)
def test_each_job_takes_its_own_gpus(
    visible: str, processes: int, jobs: int, shares: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [one["CUDA_VISIBLE_DEVICES"] for one in share_gpus(params("cuda", processes), jobs)] == shares


@pytest.mark.parametrize(
    "visible, device, processes, jobs, said",
    [
        ("0,1", "cuda", 1, 3, "JOBS=3: each job takes launch.processes: 1 of the GPUs, and 2 can be seen "
         "(CUDA_VISIBLE_DEVICES); set JOBS=2"),
        ("0,1,2", "cuda", 2, 2, "JOBS=2: each job takes launch.processes: 2 of the GPUs, and 3 can be seen "
         "(CUDA_VISIBLE_DEVICES); leave JOBS out"),
        ("", "cuda", 1, 2, "JOBS=2: each job takes launch.processes: 1 of the GPUs, and 0 can be seen "
         "(CUDA_VISIBLE_DEVICES); leave JOBS out"),
        ("0,1", "cuda:1", 1, 2, "profiles.miniature.machine.device: 'cuda:1' is one GPU, JOBS=2 wants one a job; "
         "set cuda, or leave JOBS out"),
    ],
)  # fmt: skip
def test_too_few_gpus_are_refused(
    visible: str, device: str, processes: int, jobs: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError) as refused:
        share_gpus(params(device, processes), jobs)
    assert str(refused.value) == said


@pytest.mark.parametrize("visible, gpus", [("0,-1,1", ["0"]), ("-1", []), ("1,,2", ["1"]), ("1,0,1", ["1", "0"])])
def test_what_is_visible_is_read_as_cuda_reads_it(
    visible: str, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert visible_gpus() == gpus


def test_without_the_variable_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    done: Any = subprocess.CompletedProcess([], 0, stdout="2\n")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: done)
    assert visible_gpus() == ["0", "1"]
