"""Progress keeps the items, seconds add up by part, step records have fixed bytes."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from captioning.base.files import write_records
from captioning.runtime.progress import Stopwatch, progress

ROOT = Path(__file__).parents[2]


def test_records_have_these_bytes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "steps.csv"
    records = [
        {"step": 1, "loss": 1 / 3, "learning_rate": 2e-5, "extra": 1},
        {"step": 10, "loss": None, "name": "a, b"},
        {"step": 1234567, "loss": math.nan, "learning_rate": 1.0},
    ]
    write_records(path, records, ("step", "loss", "learning_rate", "name"))
    assert path.read_bytes() == (b'step,loss,learning_rate,name\n1,0.333333,2e-05,\n10,,,"a, b"\n1234567,nan,1,\n')


def test_progress_keeps_the_items(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(iter([3, 1]), 2, "captions")) == [3, 1]
    assert capsys.readouterr().out == ""


def test_a_stopwatch_adds_up_parts_and_waits_for_queued_work(monkeypatch: pytest.MonkeyPatch) -> None:
    times, waits = iter([0.0, 1.0, 5.0, 5.5, 9.0, 9.25]), []
    monkeypatch.setattr("captioning.runtime.progress.time.perf_counter", lambda: next(times))
    watch = Stopwatch(lambda: waits.append(True))
    for part in ("decode", "update", "decode"):
        with watch(part):
            pass
    assert watch.lap() == {"decode": 1.25, "update": 0.5}
    assert watch.lap() == {}
    assert len(waits) == 3


def test_work_goes_on_after_the_reader_of_stdout_left() -> None:
    code = "import sys; from captioning.runtime.progress import write_stdout; "
    code += "write_stdout('a\\n' * 99999); write_stdout('b'); print('end', file=sys.stderr)"
    command = ["bash", "-o", "pipefail", "-c", f'"{sys.executable}" -c "$CODE" | head -1']
    process = subprocess.run(command, cwd=ROOT, env=os.environ | {"CODE": code}, capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (0, "a\n", "end\n")
