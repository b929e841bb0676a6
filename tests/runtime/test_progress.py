"""Progress keeps the items, seconds add up by part."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from captioning.runtime.progress import Stopwatch, progress

ROOT = Path(__file__).parents[2]


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
