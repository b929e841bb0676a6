"""Two processes give the result of one: adapters, records, validations. A user error is reported once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from captioning.compute import processes
from captioning.compute.processes import SINGLE_PROCESS, Processes, show_one_gpu, start_processes, visible_device

ROOT = Path(__file__).parents[2]


class Run(NamedTuple):
    """How a training ended."""

    status: int
    errors: str


class Trained(NamedTuple):
    """A training's runs by name, and the folder of their results."""

    folder: Path
    runs: dict[str, Run]

    def load(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / name / "adapter_model.safetensors")

    def records(self, name: str) -> list[Any]:
        return json.loads((self.folder / f"{name}.json").read_text())


RESUMED = "2,RUN_NAME=resumed,STATES=1"
TWO = {"alone": "1", "shared": "2"}
RUNS = {  # of each training, in the words of tests/helpers/forked_training.py
    "supervised": TWO
    | {"killed": f"{RESUMED},KILL_AT=6", "resumed": RESUMED, "spoilt": "2,RUN_NAME=spoilt,STATES=1,SPOIL_AT=3"},
    "scst": TWO
    | {"killed": f"{RESUMED},KILL_AT=3", "resumed": RESUMED, "spoilt": "2,RUN_NAME=spoilt,STATES=1,SPOIL_AT=2"},
    "pretraining": TWO,
}


@pytest.fixture(scope="module")
def train(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """Return a function that runs a training as `RUNS` says, once."""

    @cache
    def run(training: str) -> Trained:
        folder, runs = tmp_path_factory.mktemp(training), RUNS[training]
        (folder / "checkpoint").symlink_to(checkpoint)
        command = [sys.executable, "-m", "tests.helpers.forked_training", training, str(folder), *runs.values()]
        output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
        return Trained(folder, dict(zip(runs, (Run(*run) for run in json.loads(output)), strict=True)))

    return run


def are_near(first: Any, second: Any) -> bool:
    """Compare records within 1e-5, but for the share of an epoch, which depends on the number of micro-batches."""
    tolerance = {"rel": 1e-5, "abs": 1e-5}
    keys = first.keys() - {"epoch"}
    return first.keys() == second.keys() and all(second[key] == pytest.approx(first[key], **tolerance) for key in keys)


@pytest.mark.parametrize("training", list(RUNS))
def test_two_processes_give_the_result_of_one(training: str, train: Callable[[str], Trained]) -> None:
    trained = train(training)
    for name in ("alone", "shared"):
        assert trained.runs[name].status == 0, trained.runs[name].errors
    alone, first, second = (trained.load(name) for name in ("1-0", "2-0", "2-1"))
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-5, msg=name)
        assert torch.equal(first[name], second[name]), f"the processes differ: {name}"
    records, shared = trained.records("1"), trained.records("2")
    assert len(records) == len(shared) > (0 if training == "pretraining" else 3)
    assert all(are_near(first, second) for first, second in zip(records, shared, strict=True))


@pytest.mark.parametrize("training", ["supervised", "scst"])
def test_two_processes_continue_to_the_same_bytes(training: str, train: Callable[[str], Trained]) -> None:
    """One of them is killed in a step."""
    trained = train(training)
    killed, resumed = trained.runs["killed"], trained.runs["resumed"]
    assert killed.status == 1 and "one of the 2 processes was ended by SIGKILL" in killed.errors
    assert resumed.status == 0 and resumed.errors.count("going on from step") == 2, "each process has its own states"
    whole, continued = ((trained.folder / name / "adapter_model.safetensors") for name in ("2-0", "resumed-0"))
    assert continued.read_bytes() == whole.read_bytes()
    assert trained.records("resumed") == trained.records("2"), "a state sorts the keys of records"


@pytest.mark.parametrize(("training", "step"), [("supervised", 2), ("scst", 3)])
def test_a_loss_that_is_not_finite_in_one_process_ends_both(
    training: str, step: int, train: Callable[[str], Trained]
) -> None:
    """SCST's second step has one image, so the last process computes its second loss in the third."""
    trained = train(training)
    status, errors = trained.runs["spoilt"]
    assert status == 1 and "Traceback" not in errors
    assert errors.count(f"error: the loss is nan at step {step}, ") == 1, errors
    for rank in "01":
        states = (trained.folder / f"scratch-spoilt/{rank}/cpu").glob("step-*")
        assert max(int(path.name.removeprefix("step-")) for path in states) == step - 1
    assert not (trained.folder / "spoilt.json").exists()


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
