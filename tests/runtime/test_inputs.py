"""What dvc.yaml declares is what DVC takes it for; what moves meanwhile is named; other inputs, another fingerprint."""

import os
import re
import shutil
from pathlib import Path

import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from benchmarks.copies import set_values
from captioning.base.errors import UserError
from captioning.params.load import load_params
from captioning.runtime import inputs

ROOT = Path(__file__).parents[2]
PARAMS = "lora:\n  rank: 4\n  alpha: 8\nrows: [mix, base-r4]\nprofile: small\nprofiles: {small: {data: {images: 5}}}\n"
PIPELINE = """
stages:
  train:
    matrix: {row: "${rows}", seed: [1, 2]}
    cmd: python -m stages.train ${item.row} ${item.seed}
    deps: [data, "code/${item.row}.py"]
    params: [lora, "profiles.${profile}.data"]
    outs: ["models/${item.row}-${item.seed}"]
    metrics: ["metrics/${item.row}.json": {cache: false}]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One stage on two files and some parameters."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inputs, "noted_inputs", [])
    monkeypatch.setenv(inputs.FINGERPRINT, "")
    monkeypatch.delenv(inputs.FINGERPRINT)
    for name, text in {
        "params.yaml": PARAMS, "dvc.yaml": PIPELINE, "requirements.txt": "torch==2.13.0\n", "data/a.txt": "a",
        "data/b/c.txt": "c", "code/mix.py": "x = 1", "code/base-r4.py": "",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def begin(row: str = "mix", seed: str = "1") -> str:
    """The fingerprint of a stage that begins now."""
    os.environ.pop(inputs.FINGERPRINT, None)
    inputs.noted_inputs.clear()
    inputs.begin(["-m", "stages.train", row, seed])
    return os.environ[inputs.FINGERPRINT]


def test_every_stage_is_what_dvc_takes_it_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with Repo(str(ROOT)) as repo:
        stages = list(repo.index.stages)
    assert len(stages) > 30
    for stage in stages:
        found = inputs.find_declared_stage(stage.cmd.split()[1:])
        assert found is not None and found.name == stage.name
        params = {key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params}
        files = {dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)}
        assert (set(found.deps), set(found.params)) == (files, params)
        assert set(found.outs) == {out.def_path for out in stage.outs}


def test_what_is_declared_is_spelt_out(project: Path) -> None:
    found = inputs.find_declared_stage(["-m", "stages.train", "base-r4", "2"])
    assert found == inputs.DeclaredStage(
        "train@base-r4-2", ("data", "code/base-r4.py"), ("lora", "profiles.small.data"),
        ("models/base-r4-2", "metrics/base-r4.json"),
    )  # fmt: skip


def test_an_edit_that_is_put_back_does_not_reach_the_stage(project: Path) -> None:
    begin()
    set_values(project / "params.yaml", {"lora.rank": 8})
    params = inputs.params_at_start()
    assert params is not None and params["lora"] == {"rank": 4, "alpha": 8}
    set_values(project / "params.yaml", {"lora.rank": 4})
    inputs.require_unchanged_inputs()


def test_parameters_are_checked_as_they_were_when_the_stage_began(project: Path) -> None:
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    inputs.begin(["-m", "stages.train", "by", "hand"])
    set_values(project / "params.yaml", {"profile": "paper", "lora.rank": 5})
    assert (load_params().profile, load_params().lora.rank) == ("miniature", 16)
    inputs.noted_inputs.clear()
    assert (load_params().profile, load_params().lora.rank) == ("paper", 5)


def test_another_profile_than_dvc_began_with_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC would note the values of the one, and the stage work with the other's."""
    (project / "data/checked.txt").write_text("large\n", encoding="utf-8")
    begin()
    monkeypatch.setenv("DVC_STAGE", "train@mix-1")
    with pytest.raises(UserError, match=r"profile is 'small', and the stage `check` found large; run `dvc repro`"):
        begin()
    (project / "data/checked.txt").write_text("small\n", encoding="utf-8")
    begin()


def test_nothing_moved(project: Path) -> None:
    begin()
    (project / "code/base-r4.py").write_text("not this one's", encoding="utf-8")
    (project / "data/b/__pycache__").mkdir()
    (project / "data/b/__pycache__/c.pyc").write_bytes(b"")
    set_values(project / "params.yaml", {"rows": ["mix"]})
    inputs.require_unchanged_inputs()


@pytest.mark.parametrize("path", ["data/a.txt", "data/b/c.txt", "data/new.txt", "code/mix.py"])
def test_a_file_that_moves_is_named(path: str, project: Path) -> None:
    begin()
    (project / path).write_text("z", encoding="utf-8")
    with pytest.raises(UserError, match=f"^{re.escape(path)}: changed while"):
        inputs.require_unchanged_inputs()


def test_what_is_put_back_has_been_something_else(project: Path) -> None:
    begin()
    (project / "data/a.txt").write_text("b", encoding="utf-8")
    (project / "data/a.txt").write_text("a", encoding="utf-8")
    with pytest.raises(UserError, match=r"^data/a.txt: changed"):
        inputs.require_unchanged_inputs()


def test_dvc_runs_no_stage_that_is_gone(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@mix-1")
    begin()
    set_values(project / "params.yaml", {"rows": ["base-r4"]})
    with pytest.raises(UserError, match=r"^params.yaml or dvc.yaml changed since `dvc repro` began, and train@mix-1"):
        begin()


def test_an_orphan_of_dvcs_stops(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_STAGE", "train@mix-1")
    begin()
    inputs.require_unchanged_inputs()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with pytest.raises(UserError, match=r"^train@mix-1: whoever began this stage has ended meanwhile"):
        inputs.require_unchanged_inputs()
    monkeypatch.delenv("DVC_STAGE")
    inputs.require_unchanged_inputs()  # a command by hand may outlive its shell


def test_a_file_that_goes_is_named(project: Path) -> None:
    begin()
    shutil.rmtree(project / "data")
    with pytest.raises(UserError, match=r"^data/a.txt, data/b/c.txt: changed"):
        inputs.require_unchanged_inputs()


@pytest.mark.parametrize(("key", "value", "told"), [
    ("lora.rank", 8, "lora"), ("profiles.small.data.images", 6, "profiles.small.data")])  # fmt: skip
def test_a_parameter_that_moves_is_named(key: str, value: int, told: str, project: Path) -> None:
    begin()
    set_values(project / "params.yaml", {key: value})
    with pytest.raises(UserError, match=rf"^params\.yaml \({told}\): changed"):
        inputs.require_unchanged_inputs()


def test_a_watched_checkpoint_that_moves_is_named(project: Path) -> None:
    begin()
    (project / "checkpoint").mkdir()
    (project / "checkpoint/model.safetensors").write_bytes(b"1")
    inputs.watch(Path("checkpoint"))
    inputs.require_unchanged_inputs()
    (project / "checkpoint/model.safetensors").write_bytes(b"12")
    with pytest.raises(UserError, match=r"^checkpoint/model.safetensors: changed"):
        inputs.require_unchanged_inputs()


def test_the_fingerprint_is_of_all_it_depends_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = begin()
    assert begin() == first and first.startswith("train@mix-1/")
    seen = {first, begin(seed="2")}
    (project / "data/b/c.txt").write_text("d", encoding="utf-8")
    seen.add(begin())
    (project / "code/mix.py").write_text("x = 2", encoding="utf-8")
    seen.add(begin())
    set_values(project / "params.yaml", {"lora.alpha": 9})
    seen.add(begin())
    monkeypatch.setattr(inputs, "version", lambda name: "0.0.1")
    seen.add(begin())
    assert len(seen) == 6
    set_values(project / "params.yaml", {"rows": ["mix"]})  # none of its own
    assert begin() in seen


def test_processes_of_one_stage_share_its_fingerprint(project: Path) -> None:
    fingerprint = begin()
    (project / "data/a.txt").write_text("moved", encoding="utf-8")
    inputs.begin(["-m", "stages.train", "mix", "1"])
    assert os.environ[inputs.FINGERPRINT] == fingerprint and [one.owner for one in inputs.noted_inputs] == [True, False]
    (project / "data/a.txt").write_text("again", encoding="utf-8")
    with pytest.raises(UserError, match=r"^data/a.txt, data/a.txt: changed"):
        inputs.require_unchanged_inputs()  # each looks for itself


def test_a_command_by_hand_has_a_fingerprint_that_never_comes_again(project: Path) -> None:
    first = begin("mix", "3")
    assert first.startswith("by-hand/") and begin("mix", "3") != first
    inputs.require_unchanged_inputs()


@pytest.mark.parametrize("text", ["stages: [", "[]", "stages: {train: {cmd: 'python ${nothing}'}}", "\x00"])
def test_a_malformed_file_is_told_by_others(text: str, project: Path) -> None:
    (project / "dvc.yaml").write_text(text, encoding="utf-8")
    assert begin().startswith("by-hand/")
