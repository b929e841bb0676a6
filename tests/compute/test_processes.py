"""Two processes give what one gives: adapters, records, validations; a mistake is told once."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from captioning.compute import processes
from captioning.compute.processes import SINGLE_PROCESS, Processes, show_one_gpu, visible_device

ROOT = Path(__file__).parents[2]


def run(what: str, folder: Path, count: int, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.helpers.shared_training", what, str(folder), str(count)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment)


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    (tmp_path / "checkpoint").symlink_to(checkpoint)
    return tmp_path


def near(one: Any, other: Any) -> bool:
    """Records, key by key, within 1e-5. Within an epoch, how far it is depends on the number of micro-batches."""
    compared = one.keys() - {"epoch"}
    return one.keys() == other.keys() and all(
        other[key] == pytest.approx(one[key], rel=1e-5, abs=1e-5) for key in compared
    )


@pytest.mark.parametrize("what", ["supervised", "scst", "pretraining"])
def test_two_processes_give_the_result_of_one(what: str, folder: Path) -> None:
    for count in (1, 2):
        done = run(what, folder, count)
        assert done.returncode == 0, done.stderr
    alone, first, second = (load_file(folder / f"{name}/adapter_model.safetensors") for name in ("1-0", "2-0", "2-1"))
    for name, value in alone.items():
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-5, msg=name)
        assert torch.equal(first[name], second[name]), f"the processes have drifted apart: {name}"
    records, shared = (json.loads((folder / f"{count}.json").read_text()) for count in (1, 2))
    assert len(records) == len(shared) > (0 if what == "pretraining" else 3)
    assert all(near(one, other) for one, other in zip(records, shared, strict=True))


@pytest.mark.parametrize(("what", "passes"), [("supervised", "6"), ("scst", "3")])
def test_two_processes_of_which_one_is_killed_go_on_to_the_same_bytes(what: str, passes: str, folder: Path) -> None:
    undisturbed = run(what, folder, 2)
    assert undisturbed.returncode == 0, undisturbed.stderr
    expected = (folder / "2-0/adapter_model.safetensors").read_bytes(), json.loads((folder / "2.json").read_text())
    killed = run(what, folder, 2, STATES="1", KILL_AT=passes)
    assert killed.returncode != 0
    again = run(what, folder, 2, STATES="1")
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("going on from step") == 2, "each from its own states"
    assert (folder / "2-0/adapter_model.safetensors").read_bytes() == expected[0]
    assert json.loads((folder / "2.json").read_text()) == expected[1]


def test_a_mistake_is_told_once_and_without_a_traceback(folder: Path) -> None:
    done = run("mistake", folder, 2)
    assert done.returncode == 1
    assert done.stderr.count("a mistake that every process meets") == 1
    assert "Traceback" not in done.stderr


def test_shares_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    items = list(range(7))
    shares = [Processes(rank, 3).share(items) for rank in range(3)]
    assert [list(share) for share in shares] == [[0, 3, 6], [1, 4], [2, 5]]
    monkeypatch.setattr(Processes, "_gather_shares", lambda *_: [list(share) for share in shares])
    assert Processes(1, 3).gather_in_order(shares[1]) == items
    assert SINGLE_PROCESS.gather_in_order([3, 4]) == [3, 4]


@pytest.mark.parametrize(
    ("visible", "device", "place", "seen"),
    [(None, "cuda", 2, "2"), (None, "cuda:1", 0, "1"), ("4,7", "cuda", 1, "7"), ("4,7", "cuda:0", 0, "4"),
     ("4", "cuda", 3, "4"), ("4,7", "cpu", 1, "4,7")],
)  # fmt: skip
def test_each_process_sees_one_gpu(
    visible: str | None, device: str, place: int, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {} if visible is None else {processes.VISIBLE_GPUS: visible})
    show_one_gpu(device, place)
    assert os.environ[processes.VISIBLE_GPUS] == seen
    assert visible_device(device) == device.partition(":")[0]


def test_threads_are_shared_out() -> None:
    assert [Processes(0, count).threads(8) for count in (1, 3, 16)] == [8, 2, 1]
