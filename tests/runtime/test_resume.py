"""States are whole or passed over, results go on after the last whole line, and a run finds its own states only."""

import subprocess
import sys
import time
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
    KEPT_STATES,
    Results,
    States,
    exclusive_run_folder,
    mark_finished,
    remove_finished_runs,
    run_folder,
)


def put(text: str, name: str = "numbers.txt"):
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def beside(work: str, fingerprint: str) -> subprocess.Popen[str]:
    """Another process that does `work` in its workplace, and is in it."""
    code = "import time\nfrom captioning.runtime.resume import exclusive_run_folder\n"
    code += f"with exclusive_run_folder() as folder: print(flush=True); {work}"
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), FINGERPRINT: fingerprint}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    other = subprocess.Popen([sys.executable, "-c", code], text=True, env=environment, **pipes)
    assert other.stdout.readline() == "\n"
    return other


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage with a fingerprint, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv(FINGERPRINT, "scst@mix-greedy-1/abc")


def test_the_newest_states_are_kept(tmp_path: Path) -> None:
    states = States(tmp_path / "states", 0)
    for step in (1, 2, 10):
        states.save(step, put(str(step)))
    assert states.intact_steps() == [2, 10] and KEPT_STATES == 2
    assert (states.open_state(10) / "numbers.txt").read_text(encoding="utf-8") == "10"


def test_a_state_that_failed_is_not_there(tmp_path: Path) -> None:
    states = States(tmp_path / "states", 0)
    states.save(1, put("1"))

    def fails(folder: Path) -> None:
        put("half")(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        states.save(2, fails)
    assert states.intact_steps() == [1]
    assert [one.name for one in (tmp_path / "states").iterdir()] == ["step-1"]


@pytest.mark.parametrize("torn", ["shorter", "other", "missing", "hashes"])
def test_a_torn_state_is_passed_over(torn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = States(tmp_path / "states", 0)
    states.save(1, put("123"))
    states.save(2, put("123"))
    file = tmp_path / "states/step-2" / ("whole.json" if torn == "hashes" else "numbers.txt")
    {"shorter": lambda: file.write_text("12"), "other": lambda: file.write_text("124"), "missing": file.unlink,
     "hashes": lambda: file.write_text("{")}[torn]()  # fmt: skip
    assert states.intact_steps() == [1]
    assert f"{tmp_path}/states/step-2: torn; it is passed over" in capsys.readouterr().err


def test_it_is_time_after_so_many_seconds(tmp_path: Path) -> None:
    assert States(tmp_path, 0).is_due()
    states = States(tmp_path, 0.05)
    assert not states.is_due()
    time.sleep(0.06)
    assert states.is_due()
    states.save(1, put("1"))
    assert not states.is_due()


def test_nothing_is_kept_of_inputs_that_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def moved() -> None:
        raise UserError("data/a.txt: changed")

    states, results = States(tmp_path / "states", 0), Results(tmp_path / "0.jsonl")
    states.save(1, put("1"))
    results.add(1)
    monkeypatch.setattr(resume, "require_unchanged_inputs", moved)
    for keep in (lambda: states.save(2, put("2")), lambda: results.add(2)):
        with pytest.raises(UserError, match="changed"):
            keep()
    with pytest.raises(UserError, match="changed"), exclusive_run_folder():
        pass
    assert states.intact_steps() == [1] and Results(tmp_path / "0.jsonl").results == [1]


def test_results_go_on_after_the_last_whole_line(tmp_path: Path) -> None:
    results = Results(tmp_path / "run/0.jsonl")
    results.add([1, "a"])
    results.add({"b": 2})
    with (tmp_path / "run/0.jsonl").open("a") as file:
        file.write('["torn')
    again = Results(tmp_path / "run/0.jsonl")
    assert again.results == [[1, "a"], {"b": 2}]
    again.add(3)
    again.truncate(1)
    assert Results(tmp_path / "run/0.jsonl").results == [[1, "a"]]


@pytest.mark.parametrize("line", [b"1", b"\0\0\0\n2\n", b"nonsense\n2\n"])
def test_what_follows_a_torn_line_is_dropped(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    path.write_bytes(b"0\n" + line)
    assert Results(path).results == [0]
    assert path.read_bytes() == b"0\n"


def test_another_fingerprint_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with exclusive_run_folder() as folder:
        put("mine")(folder)
    with exclusive_run_folder() as folder:
        assert (folder / "numbers.txt").exists()
    monkeypatch.setenv(FINGERPRINT, "scst@mix-greedy-1/other")
    with exclusive_run_folder() as folder:
        assert not (folder / "numbers.txt").exists()


def test_states_stand_in_the_main_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "main"))
    with exclusive_run_folder() as folder:
        assert folder == tmp_path / "main/.cache/resume/scst@mix-greedy-1/abc"


def test_old_runs_are_pruned_but_none_that_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = beside("input()", "s/0")
    for number in range(1, 6):
        time.sleep(0.02)
        monkeypatch.setenv(FINGERPRINT, f"s/{number}")
        with exclusive_run_folder() as folder:
            pass
    assert {one.name for one in folder.parent.iterdir()} == {"0", *(str(number) for number in range(5 - KEPT_RUNS, 6))}
    under_way.communicate("\n")


def test_a_run_waits_for_one_that_does_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    other = beside("time.sleep(2); (folder / 'numbers.txt').write_text('done')", "scst@mix-greedy-1/abc")
    with exclusive_run_folder() as folder:
        assert (folder / "numbers.txt").read_text(encoding="utf-8") == "done"
    assert capsys.readouterr().err.count("another run does the same; waiting for it") == 1
    other.wait()


@pytest.mark.parametrize("recorded", [True, False])
def test_a_finished_run_is_begun_anew_only_where_dvc_has_recorded_it(
    recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(resume, "is_recorded", lambda stage: asked.append(stage) or recorded)
    with exclusive_run_folder() as folder:
        put("result")(folder)
    mark_finished()
    with exclusive_run_folder() as folder:
        assert (folder / "numbers.txt").exists() is not recorded
    assert asked == ["scst@mix-greedy-1"]


def test_the_last_stage_sweeps_what_finished_stages_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with exclusive_run_folder():
        pass
    mark_finished()
    monkeypatch.setenv(FINGERPRINT, "generate@mix-1/abc")
    with exclusive_run_folder() as interrupted:
        pass
    with FileLock(Path(".cache/resume/scst@mix-greedy-1/abc/lock")):  # as a run that does the same again
        remove_finished_runs()
        assert len(list(Path(".cache/resume").glob(f"*/*/{FINISHED}"))) == 1
    remove_finished_runs()
    assert [one.parent for one in Path(".cache/resume").glob("*/*/lock")] == [interrupted]
    assert not list(Path(".cache/resume").glob(f"*/*/{FINISHED}"))


def test_generate_goes_on_after_the_last_whole_batch(tmp_path: Path) -> None:
    batches, seen = [[b"a"], [b"b"], [b"c"]], list[bytes]()

    def caption(batch: list[bytes], last: bytes = b"") -> list[dict[str, Any]]:
        if batch[0] == last:
            raise KeyboardInterrupt
        seen.extend(batch)
        return [{"text": one.decode()} for one in batch]

    with pytest.raises(KeyboardInterrupt):
        Results(tmp_path / "0.jsonl").map(batches, lambda batch: caption(batch, b"c"), "batches")
    with (tmp_path / "0.jsonl").open("a") as file:
        file.write('[{"text": "cut')
    said = Results(tmp_path / "0.jsonl").map(batches, caption, "batches")
    assert seen == [b"a", b"b", b"c"]
    assert [one["text"] for of in said for one in of] == ["a", "b", "c"]


def test_a_command_by_hand_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FINGERPRINT, "by-hand/1234")
    with exclusive_run_folder() as folder:
        put("1")(folder)
    mark_finished()
    assert not run_folder().exists()
