"""The command line of `pipeline.jobs`."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioning.base.errors import UserError
from captioning.params.load import load_params
from pipeline.jobs import count_fitting_jobs, make_log_folder, parse_jobs
from tests.helpers.project_copy import ROOT, Project


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "1.5", "²", "10000"])
def test_jobs_must_be_a_number_from_1(text: str) -> None:
    with pytest.raises(UserError, match=f"^JOBS: '{re.escape(text)}' is neither a whole number from 1 to 9999 nor"):
        parse_jobs(text)


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
def test_as_many_jobs_as_cores_and_memory_allow(
    cores: int, free: float, threads: int, processes: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    params = load_params()
    params.active.machine.__dict__["threads"], params.launch.__dict__["processes"] = threads, processes  # frozen
    monkeypatch.setattr("captioning.params.load.load_params", lambda: params)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=free))
    assert count_fitting_jobs() == jobs
    assert parse_jobs("auto") is None


def test_a_file_instead_of_the_log_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".cache").touch()
    with pytest.raises(UserError, match=r"^\.cache/logs: Not a directory; "):
        make_log_folder()


def test_slow_imports_come_after_ctrl_c_is_caught() -> None:
    slow = "{'dvc', 'psutil', 'pydantic', 'ruamel.yaml', 'multiprocessing'}"
    Project(ROOT).run(sys.executable, "-c", f"import sys, pipeline.jobs; sys.exit(bool({slow} & {{*sys.modules}}))")


@pytest.mark.parametrize(("options", "jobs"), [(["JOBS=3"], "3"), ([], "auto")])
def test_make_passes_the_number_of_jobs(options: list[str], jobs: str) -> None:
    output = Project(ROOT).run("make", "--dry-run", "repro", *options).out
    assert f"python -m pipeline.jobs --jobs '{jobs}'\n" in output
