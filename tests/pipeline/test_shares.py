"""Each job has its own GPUs; too few GPUs are one line."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from captioning.base.errors import UserError
from captioning.params.load import load_params
from captioning.params.sections import Params
from pipeline.shares import share_gpus, visible_gpus

ROOT = Path(__file__).parents[2]


def make_params(device: str, processes: int) -> Params:
    params = load_params(ROOT / "params.yaml").model_dump(by_alias=True)
    params["profiles"]["miniature"]["machine"]["device"] = device
    params["launch"]["processes"] = processes
    return Params.model_validate(params)


def test_a_cpu_needs_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.shares.visible_gpus", lambda: pytest.fail("counted"))
    assert share_gpus(make_params("cpu", 2), 3) == [{}, {}, {}]


@pytest.mark.parametrize(
    ("visible", "processes", "jobs", "shares"),
    [
        ("0,1", 1, 2, ["0", "1"]),
        ("GPU-8f, MIG-3a ,5", 1, 3, ["GPU-8f", "MIG-3a", "5"]),
        ("3,1,2,0,7", 2, 2, ["3,1", "2,0"]),
    ],
)
def test_each_job_has_its_own_gpus(
    visible: str, processes: int, jobs: int, shares: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in share_gpus(make_params("cuda", processes), jobs)] == shares


@pytest.mark.parametrize(
    ("visible", "device", "processes", "jobs", "message"),
    [
        ("0,1", "cuda", 1, 3, r"^JOBS=3: .* 2 are visible .*; set JOBS=2$"),
        ("0,1,2", "cuda", 2, 2, r"^JOBS=2: .* needs 2 \(launch.processes\), and 3 are visible .*; omit JOBS$"),
        ("", "cuda", 1, 2, r"^JOBS=2: .* 0 are visible .*; omit JOBS$"),
        (
            "0,1",
            "cuda:1",
            1,
            2,
            r"^profiles.miniature.machine.device: 'cuda:1' is one GPU, .*; set cuda, or omit JOBS$",
        ),
    ],
)
def test_too_few_gpus_are_one_line(
    visible: str, device: str, processes: int, jobs: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(UserError, match=message):
        share_gpus(make_params(device, processes), jobs)


@pytest.mark.parametrize(
    ("visible", "gpus"),
    [("0,-1,1", ["0"]), ("-1", []), ("1,,2", ["1"]), ("1,0,1", ["1", "0"]), (None, ["0", "1"])],
)
def test_visible_gpus_are_those_of_cuda(visible: str | None, gpus: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    counted: Any = subprocess.CompletedProcess([], 0, stdout="2\n")
    monkeypatch.setattr(subprocess, "run", lambda command, **_: counted)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert visible_gpus() == gpus
