"""Two processes give the result of one: adapters, records, validations. A user error is reported once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from captioning.compute import processes
from captioning.compute.processes import SINGLE_PROCESS, Processes, show_one_gpu, start_processes, visible_device

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    (tmp_path / "checkpoint").symlink_to(checkpoint)
    return tmp_path


class Run(NamedTuple):
    """How a training ended."""

    status: int
    errors: str


def train(training: str, folder: Path, *runs: str) -> list[Run]:
    """Run a training as often as `runs` say (tests/helpers/forked_training.py)."""
    command = [sys.executable, "-m", "tests.helpers.forked_training", training, str(folder), *runs]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    return [Run(*run) for run in json.loads(output)]


def are_near(first: Any, second: Any) -> bool:
    """Compare records within 1e-5, but for the share of an epoch, which depends on the number of micro-batches."""
    tolerance = {"rel": 1e-5, "abs": 1e-5}
    keys = first.keys() - {"epoch"}
    return first.keys() == second.keys() and all(second[key] == pytest.approx(first[key], **tolerance) for key in keys)


@pytest.mark.parametrize(("training", "step"), [("supervised", "6"), ("scst", "3"), ("pretraining", None)])
def test_two_processes_give_the_result_of_one(training: str, step: str | None, folder: Path) -> None:
    """After a kill in a step, they give the same bytes."""
    for finished in train(training, folder, "1", "2"):
        assert finished.status == 0, finished.errors
    alone, first, second = (load_file(folder / f"{name}/adapter_model.safetensors") for name in ("1-0", "2-0", "2-1"))
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-5, msg=name)
        assert torch.equal(first[name], second[name]), f"the processes differ: {name}"
    records, shared = (json.loads((folder / f"{count}.json").read_text()) for count in (1, 2))
    assert len(records) == len(shared) > (0 if training == "pretraining" else 3)
    assert all(are_near(first, second) for first, second in zip(records, shared, strict=True))
    if step is not None:
        expected = (folder / "2-0/adapter_model.safetensors").read_bytes()
        kill_and_continue(training, step, folder)
        assert (folder / "2-0/adapter_model.safetensors").read_bytes() == expected
        assert json.loads((folder / "2.json").read_text()) == shared, "a state sorts the keys of records"


def kill_and_continue(training: str, step: str, folder: Path) -> None:
    killed, continued = train(training, folder, f"2,STATES=1,KILL_AT={step}", "2,STATES=1")
    assert killed.status == 1 and "one of the 2 processes was ended by SIGKILL" in killed.errors
    assert continued.errors.count("going on from step") == 2, "each process has its own states"


@pytest.mark.parametrize(("training", "spoilt", "step"), [("supervised", "3", 2), ("scst", "2", 3)])
def test_a_loss_that_is_not_finite_in_one_process_ends_both(
    training: str, spoilt: str, step: int, folder: Path
) -> None:
    """SCST's second step has one image, so the last process computes its second loss in the third."""
    ((status, errors),) = train(training, folder, f"2,STATES=1,SPOIL_AT={spoilt}")
    assert status == 1 and "Traceback" not in errors
    assert errors.count(f"error: the loss is nan at step {step}, ") == 1, errors
    for rank in "01":
        states = (folder / f"scratch-2/{rank}/cpu").glob("step-*")
        assert max(int(path.name.removeprefix("step-")) for path in states) == step - 1
    assert not (folder / "2.json").exists()


def test_a_user_error_is_reported_once_without_a_traceback() -> None:
    """torchrun starts the processes, as for a user."""
    command = [sys.executable, "-m", "tests.helpers.shared_mistake"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1 and "Traceback" not in process.stderr
    assert process.stderr.count("a mistake in each process") == 1


def test_shares_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(range(7))
    shares = [Processes(rank, 3).share(items) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 3, 6], [1, 4], [2, 5]]
    messages = [json.dumps(list(share)) for share in shares]

    def all_gather(outputs: list[torch.Tensor], value: torch.Tensor) -> None:
        for output, message in zip(outputs, messages, strict=True):
            padded = bytearray(message.ljust(len(value)).encode())
            output.copy_(
                torch.tensor([len(message)]) if len(value) == 1 else torch.frombuffer(padded, dtype=torch.uint8)
            )

    monkeypatch.setattr(processes.dist, "get_backend", lambda: "gloo")
    monkeypatch.setattr(processes.dist, "all_gather", all_gather)
    assert Processes(1, 3).gather_in_order(shares[1]) == items
    assert SINGLE_PROCESS.gather_in_order([3, 4]) == [3, 4]


@pytest.mark.parametrize(
    ("visible", "device", "rank", "expected"),
    [
        ("", "cuda", 2, "2"),
        ("", "cuda:1", 0, "1"),
        ("4,7", "cuda", 1, "7"),
        ("4,7", "cuda:0", 0, "4"),
        ("4", "cuda", 3, "4"),
        ("4,7", "cpu", 1, "4,7"),
    ],
)
def test_each_process_sees_one_gpu(
    visible: str, device: str, rank: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {processes.VISIBLE_GPUS: visible} if visible else {})
    show_one_gpu(device, rank)
    assert os.environ[processes.VISIBLE_GPUS] == expected
    assert visible_device(device) == device.partition(":")[0]


def test_processes_share_the_threads() -> None:
    assert [Processes(0, count).threads(8) for count in (1, 3, 16)] == [8, 2, 1]


def test_the_signal_that_ended_a_process_is_named_although_another_failed_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process that loses its partner fails, too; torch then ends the rest with SIGTERM."""
    codes = {0: 1, 1: -signal.SIGTERM, 2: -signal.SIGKILL}

    def fail(*_: Any) -> Any:
        failures = {rank: ProcessFailure(rank, 9, code, error_file="none") for rank, code in codes.items()}
        raise ChildFailedError("stage", failures)

    monkeypatch.setattr(processes, "elastic_launch", lambda *_: fail)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(SystemExit):
        start_processes(3, "cpu")
    assert capsys.readouterr().err == "error: one of the 3 processes was ended by SIGKILL\n"
