"""A stage's declared inputs are DVC's; a change is named; other inputs give another fingerprint."""

import os
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from benchmarks.copies import set_values
from captioning.base.errors import UserError
from captioning.params.load import load_params
from captioning.runtime import inputs

ROOT = Path(__file__).parents[2]
PIPELINE = """
stages:
  train:
    matrix: {row: "${rows}", seed: "${seeds}"}
    cmd: python -m stages.train ${item.row} ${item.seed}
    deps: [data, "code/${item.row}.py"]
    params: [lora, "profiles.${profile}.data"]
    outs: ["models/${item.row}-${item.seed}"]
    metrics: ["metrics/${item.row}.json": {cache: false}]
"""
FILES = {
    "params.yaml": "lora:\n  rank: 4\n  alpha: 8\nrows: [mix, base-r4]\nseeds: [1, 2]\nprofile: small\n"
    "profiles: {small: {data: {images: 5}}}\n",
    "dvc.yaml": PIPELINE,
    "requirements.txt": "torch==2.13.0\n",
    "data/a.txt": "a",
    "data/b/c.txt": "c",
    "code/mix.py": "x = 1",
    "code/base-r4.py": "",
    "checkpoint/weights": "1",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stage with two files and some parameters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inputs, "noted_inputs", [])
    monkeypatch.setenv(inputs.FINGERPRINT, "")
    monkeypatch.delenv(inputs.FINGERPRINT)
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def begin(row: str = "mix", seed: str = "1") -> str:
    """Start the stage in a new process, so to speak, and return its fingerprint."""
    os.environ.pop(inputs.FINGERPRINT, None)
    inputs.noted_inputs.clear()
    inputs.begin(["-m", "stages.train", row, seed])
    return os.environ[inputs.FINGERPRINT]


def test_each_stage_declares_what_dvc_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with Repo(str(ROOT)) as repo:
        stages = list(repo.index.stages)
    assert len(stages) > 30
    for stage in stages:
        declared = inputs.find_declared_stage(stage.cmd.split()[1:])
        assert declared is not None and declared.name == stage.name
        params = {key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params}
        files = {dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)}
        assert (set(declared.deps), set(declared.params)) == (files, params)
        assert set(declared.outs) == {out.def_path for out in stage.outs}


def test_an_edit_of_the_parameters_does_not_reach_a_running_stage(project: Path) -> None:
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    inputs.begin(["-m", "stages.train", "by", "hand"])
    set_values(project / "params.yaml", {"profile": "paper", "lora.rank": 5})
    assert (load_params().profile, load_params().lora.rank) == ("miniature", 16)
    inputs.noted_inputs.clear()
    assert (load_params().profile, load_params().lora.rank) == ("paper", 5)


def test_dvc_may_not_run_another_profile_or_a_removed_stage(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "data/checked.txt").write_text("large\n", encoding="utf-8")
    begin()
    monkeypatch.setenv("DVC_STAGE", "train@mix-1")
    with pytest.raises(UserError, match=r"profile is 'small', .*large; run `dvc repro`"):
        begin()
    (project / "data/checked.txt").write_text("small\n", encoding="utf-8")
    begin()
    set_values(project / "params.yaml", {"rows": ["base-r4"]})
    with pytest.raises(UserError, match=r"^params.yaml or dvc.yaml: changed .* train@mix-1"):
        begin()


def test_other_files_and_parameters_may_change(project: Path) -> None:
    begin()
    (project / "code/base-r4.py").write_text("of another stage", encoding="utf-8")
    (project / "data/b/__pycache__").mkdir()
    (project / "data/b/__pycache__/c.pyc").write_bytes(b"")
    set_values(project / "params.yaml", {"rows": ["mix"], "lora.rank": 5})
    set_values(project / "params.yaml", {"lora.rank": 4})
    inputs.require_unchanged_inputs()


@pytest.mark.parametrize("path", ["data/a.txt", "data/b/c.txt", "data/new.txt", "code/mix.py", "checkpoint/weights"])
def test_a_changed_file_is_named_even_if_the_edit_is_undone(path: str, project: Path) -> None:
    begin()
    inputs.watch(Path("checkpoint"))
    inputs.require_unchanged_inputs()
    content = (project / path).read_bytes() if (project / path).exists() else b""
    for text in (b"edit", content):
        (project / path).write_bytes(text)
        with pytest.raises(UserError, match=f"^{re.escape(path)}: changed while"):
            inputs.require_unchanged_inputs()
    (project / path).unlink()
    with pytest.raises(UserError, match="changed while") if content else nullcontext():
        inputs.require_unchanged_inputs()


@pytest.mark.parametrize(
    ("key", "section"), [("lora.rank", "lora"), ("profiles.small.data.images", "profiles.small.data")]
)
def test_a_changed_parameter_is_named(key: str, section: str, project: Path) -> None:
    begin()
    set_values(project / "params.yaml", {key: 8})
    with pytest.raises(UserError, match=rf"^params\.yaml \({section}\): changed"):
        inputs.require_unchanged_inputs()


def test_a_stage_stops_if_its_dvc_has_ended(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@mix-1")
    begin()
    inputs.require_unchanged_inputs()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(UserError, match=r"^train@mix-1: the process that started this stage has ended"):
        inputs.require_unchanged_inputs()
    monkeypatch.delenv("DVC_STAGE")
    inputs.require_unchanged_inputs()  # a command by hand may outlive its shell


def test_each_input_changes_the_fingerprint(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = begin()
    assert begin() == first and first.startswith("train@mix-1/")
    fingerprints = {first, begin(seed="2")}
    for path in ("data/b/c.txt", "code/mix.py"):
        (project / path).write_text("edit", encoding="utf-8")
        fingerprints.add(begin())
    set_values(project / "params.yaml", {"lora.alpha": 9})
    fingerprints.add(begin())
    monkeypatch.setattr(inputs, "version", lambda name: "0.0.1")
    fingerprints.add(begin())
    assert len(fingerprints) == 6
    set_values(project / "params.yaml", {"rows": ["mix"]})  # not declared
    assert begin() in fingerprints
    (project / "data/a.txt").write_text("edit", encoding="utf-8")
    inputs.begin(["-m", "stages.train", "mix", "1"])  # another process of the same stage
    assert os.environ[inputs.FINGERPRINT] in fingerprints


@pytest.mark.parametrize("text", [PIPELINE, "stages: [", "[]", "stages: {train: {cmd: 'python ${nothing}'}}", "\x00"])
def test_a_command_by_hand_or_a_malformed_pipeline_has_a_random_fingerprint(text: str, project: Path) -> None:
    (project / "dvc.yaml").write_text(text, encoding="utf-8")
    first = begin("mix", "3")
    assert first.startswith("by-hand/") and begin("mix", "3") != first
    inputs.require_unchanged_inputs()
