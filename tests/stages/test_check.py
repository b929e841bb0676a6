"""Only checkpoints that a row starts from are made, and anything missing is reported before any work."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from captioning.params.sections import CHECKPOINTS
from stages import check, checkpoint

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a folder with a changed params.yaml."""

    def make(**changes: object) -> Path:
        yaml = YAML(typ="safe")
        params = yaml.load(ROOT / "params.yaml")
        params["scst"]["starts"] = changes.pop("starts", params["scst"]["starts"])
        yaml.dump(params | changes, tmp_path / "params.yaml")
        (tmp_path / "data").mkdir(exist_ok=True)
        shutil.copy(ROOT / "requirements.txt", tmp_path)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


def used_checkpoints(folder: Path) -> set[str]:
    check.main()
    answers = {name: (folder / f"data/wanted/{name}.txt").read_text() for name in CHECKPOINTS}
    assert set(answers.values()) <= {"yes\n", "no\n"}
    return {name for name, answer in answers.items() if answer == "yes\n"}


def test_checkpoints_follow_from_the_rows(project: Callable[..., Path]) -> None:
    assert used_checkpoints(project()) == {"base", "mix", "cococap", "rsvqa-lr"}
    assert used_checkpoints(project(rows=["mix"], starts=["mix"], zero_shot=["cococap"])) == {"base", "mix", "cococap"}
    assert used_checkpoints(project(rows=["paligemma2"], starts=["paligemma2"], zero_shot=[])) == {"paligemma2"}


def test_an_unused_checkpoint_has_only_a_remark(
    project: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project()
    check.main()
    checkpoint.main("paligemma2")
    assert "paligemma2: no row starts from it" in capsys.readouterr().err
    files = {path.name: path.read_text() for path in (folder / "models/checkpoints/paligemma2").iterdir()}
    assert files == {"unused.txt": "paligemma2: no row starts from it\n"}
    assert (folder / "models/checkpoints/paligemma2.json").read_text() == "{}\n"


def test_a_new_release_changes_its_group_of_pins(project: Callable[..., Path]) -> None:
    """Another torch changes `model`; another DVC changes nothing."""
    folder = project()
    check.main()
    before = {path.name: path.read_text() for path in (folder / "data/packages").iterdir()}
    text = (folder / "requirements.txt").read_text()
    assert "torch==" in before["model.txt"] and "dvc" not in "".join(before.values())
    (folder / "requirements.txt").write_text(re.sub(r"^(torch|dvc)==.*$", r"\1==9.9", text, flags=re.MULTILINE))
    check.main()
    after = {path.name: path.read_text() for path in (folder / "data/packages").iterdir()}
    assert {name for name in after if after[name] != before[name]} == {"model.txt"}


def test_a_missing_pin_is_named(project: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    folder = project()
    (folder / "requirements.txt").write_text("numpy==2\n")
    with pytest.raises(SystemExit):
        check.main()
    assert "requirements.txt: no pillow, " in capsys.readouterr().err
