"""Incomplete states are skipped, results continue after the last complete line, a run finds only its own states."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from captioning.base.errors import UserError
from captioning.runtime import resume
from captioning.runtime.inputs import FINGERPRINT
from captioning.runtime.resume import (
    FINISHED,
    KEPT_RUNS,
    Results,
    States,
    exclusive_run_folder,
    mark_finished,
    remove_finished_runs,
)

STAGE = "scst@mix-greedy-1"


def write(text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / "numbers.txt").write_text(text, encoding="utf-8")


def start_other_run(code: str, fingerprint: str) -> subprocess.Popen[str]:
    """Start a process that holds its run's folder and runs `code`."""
    code = (
        "import time\nfrom captioning.runtime.resume import exclusive_run_folder\n"
        f"with exclusive_run_folder() as folder: print(flush=True); {code}"
    )
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), FINGERPRINT: fingerprint}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code], text=True, env=environment, **pipes)
    assert process.stdout.readline() == "\n"
    return process


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder with a fingerprint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv(FINGERPRINT, f"{STAGE}/abc")


def test_the_two_newest_states_are_kept(tmp_path: Path) -> None:
    states = States(tmp_path / "states", 0)
    for step in (1, 2, 10):
        states.save(step, write(str(step)))
    assert states.intact_steps() == [2, 10] and states.is_due() and not States(tmp_path, 60).is_due()
    assert (states.open_state(10) / "numbers.txt").read_text(encoding="utf-8") == "10"


def test_a_state_that_could_not_be_written_does_not_exist(tmp_path: Path) -> None:
    states = States(tmp_path / "states", 0)
    states.save(1, write("1"))

    def fail(folder: Path) -> None:
        write("half")(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        states.save(2, fail)
    assert states.intact_steps() == [1]
    assert [path.name for path in (tmp_path / "states").iterdir()] == ["step-1"]


@pytest.mark.parametrize(
    ("file", "text"), [("numbers.txt", "12"), ("numbers.txt", "124"), ("numbers.txt", None), ("whole.json", "{")]
)
def test_an_incomplete_state_is_skipped(
    file: str, text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    states = States(tmp_path / "states", 0)
    states.save(1, write("123"))
    states.save(2, write("123"))
    path = tmp_path / "states/step-2" / file
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert states.intact_steps() == [1]
    assert f"{tmp_path}/states/step-2: incomplete, skipped" in capsys.readouterr().err


def test_nothing_is_saved_after_an_input_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise UserError("data/a.txt: changed")

    states, results = States(tmp_path / "states", 0), Results(tmp_path / "0.jsonl")
    states.save(1, write("1"))
    results.add(1)
    monkeypatch.setattr(resume, "require_unchanged_inputs", refuse)
    for save in (lambda: states.save(2, write("2")), lambda: results.add(2)):
        with pytest.raises(UserError, match="changed"):
            save()
    with pytest.raises(UserError, match="changed"), exclusive_run_folder():
        pass
    assert states.intact_steps() == [1] and Results(tmp_path / "0.jsonl").results == [1]


@pytest.mark.parametrize("end", [b"", b"1", b'["torn', b"\0\0\0\n2\n", b"nonsense\n2\n"])
def test_results_continue_after_the_last_complete_line(end: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run/0.jsonl"
    results = Results(path)
    results.add([1, "a"])
    results.add({"b": 2})
    with path.open("ab") as file:
        file.write(end)
    continued = Results(path)
    assert continued.results == [[1, "a"], {"b": 2}]
    continued.add(3)
    assert path.read_bytes() == b'[1, "a"]\n{"b": 2}\n3\n'
    continued.truncate(1)
    assert Results(path).results == [[1, "a"]]


def test_only_items_without_a_result_are_computed(tmp_path: Path) -> None:
    items: list[str] = []

    def caption(item: str, last: str = "") -> str:
        if item == last:
            raise KeyboardInterrupt
        items.append(item)
        return item.upper()

    with pytest.raises(KeyboardInterrupt):
        Results(tmp_path / "0.jsonl").map("abc", lambda item: caption(item, "c"), "captions")
    assert Results(tmp_path / "0.jsonl").map("abc", caption, "captions") == ["A", "B", "C"]
    assert items == ["a", "b", "c"]


def test_a_run_finds_only_its_own_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))  # as in an experiment: the main checkout
    for fingerprint, is_known in (("abc", False), ("abc", True), ("other", False)):
        monkeypatch.setenv(FINGERPRINT, f"{STAGE}/{fingerprint}")
        with exclusive_run_folder() as folder:
            assert folder == tmp_path / f"main/.cache/resume/{STAGE}/{fingerprint}"
            assert (folder / "numbers.txt").exists() is is_known
            write("1")(folder)


def test_old_runs_are_removed_unless_they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    other = start_other_run("input()", "s/0")
    for number in range(1, 6):
        time.sleep(0.02)
        monkeypatch.setenv(FINGERPRINT, f"s/{number}")
        with exclusive_run_folder() as folder:
            pass
    names = {path.name for path in folder.parent.iterdir()}
    assert names == {"0", *(str(number) for number in range(5 - KEPT_RUNS, 6))}
    other.communicate("\n")


def test_a_run_waits_for_an_identical_run(capsys: pytest.CaptureFixture[str]) -> None:
    other = start_other_run("time.sleep(2); (folder / 'numbers.txt').write_text('1')", f"{STAGE}/abc")
    with exclusive_run_folder() as folder:
        assert (folder / "numbers.txt").read_text(encoding="utf-8") == "1"
    assert capsys.readouterr().err.count("waiting for an identical run") == 1
    other.wait()


def test_the_last_stage_removes_the_states_of_finished_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    with exclusive_run_folder() as finished:
        pass
    mark_finished()
    monkeypatch.setenv(FINGERPRINT, "generate@mix-1/abc")
    with exclusive_run_folder() as interrupted:
        pass
    with FileLock(finished / "lock"):  # as an identical run that works
        remove_finished_runs()
        assert (finished / FINISHED).exists()
    remove_finished_runs()
    assert interrupted.exists() and not finished.exists()
    monkeypatch.setenv(FINGERPRINT, "by-hand/1234")  # no later run can find it
    with exclusive_run_folder() as folder:
        pass
    mark_finished()
    assert not folder.exists()
