"""The command line of `pipeline.jobs`, and what it finds in the folder of logs."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioning.base.errors import UserError
from captioning.params.load import load_params
from pipeline.jobs import count, make_logs, room
from pipeline.runner import SECONDS, remembered
from tests.helpers.project_copy import ROOT, Project


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "1.5", "²", "10000"])
def test_jobs_is_a_number_from_1_on(text: str) -> None:
    with pytest.raises(UserError, match=f"^JOBS: '{re.escape(text)}' is no whole number from 1 to 9999, nor auto; say"):
        count(text)


@pytest.mark.parametrize(
    ("cores", "free", "threads", "processes", "jobs"),
    [
        (2, 16e9, 1, 1, 2),
        (16, 16e9, 1, 1, 8),  # 2 GB each
        (16, 64e9, 4, 1, 4),
        (16, 64e9, 1, 4, 4),
        (1, 64e9, 1, 1, 1),
        (8, 1e9, 1, 1, 1),
    ],
)
def test_as_many_as_cores_and_memory_have_room_for(
    cores: int, free: float, threads: int, processes: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    params = load_params()
    profile = params.active
    machine = profile.machine.model_copy(update={"threads": threads})
    launch = params.launch.model_copy(update={"processes": processes})
    profiles = params.profiles | {params.profile: profile.model_copy(update={"machine": machine})}
    params = params.model_copy(update={"launch": launch, "profiles": profiles})
    monkeypatch.setattr("captioning.params.load.load_params", lambda: params)
    monkeypatch.setattr("pipeline.shares.own_cores", lambda: list(range(cores)))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    assert room() == jobs
    assert count("auto") is None


def test_a_number_that_nobody_can_read_is_cut() -> None:
    with pytest.raises(UserError, match=r"^JOBS: '1{79}… is no whole number"):
        count("1" * 5000)


@pytest.mark.parametrize(
    "text, known",
    [
        ("[1, 2]", {}),
        ("[" * 100_000, {}),
        ('{"a": [1], "b": NaN, "c": -1, "d": 1e300, "e": "x", "f": 2.5}', {"f": 2.5}),
    ],
)
def test_what_is_no_seconds_is_not_known(
    text: str, known: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_logs()
    SECONDS.write_text(text, encoding="utf-8")
    assert remembered() == known


def test_a_file_in_the_place_of_the_logs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".cache").touch()
    with pytest.raises(UserError, match=r"^\.cache/logs: not a directory; what stages say goes to a folder there"):
        make_logs()


def test_an_interruption_is_one_line_almost_from_the_first() -> None:
    """What takes long is imported where it is caught."""
    slow = "{'dvc', 'psutil', 'pydantic', 'ruamel.yaml', 'multiprocessing'}"
    Project(ROOT).run(sys.executable, "-c", f"import sys, pipeline.jobs; sys.exit(bool({slow} & {{*sys.modules}}))")


def test_make_hands_on_how_many() -> None:
    said = Project(ROOT).run("make", "--dry-run", "repro", "JOBS=3").out
    assert "python -m pipeline.jobs --jobs '3'\n" in said
    assert "python -m pipeline.jobs --jobs 'auto'\n" in Project(ROOT).run("make", "--dry-run", "repro").out
