"""Tracking changes no byte of a training; a missing package is one line."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save

from captioning.base.errors import UserError
from captioning.params.load import load_params
from captioning.params.sections import Tracking
from captioning.report.page import strip_params
from captioning.runtime import tracking
from captioning.runtime.tracking import missing_package, tracked
from captioning.supervised.finetune import CaptionRows, finetune
from captioning.training.run import TrainingRun
from captioning.training.states import trainable_weights
from stages import check
from tests.helpers.small_recipes import change

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef0123456789abcdef01234567"  # of the form that Weights & Biases takes
CAPTIONS = ["one white garden", "some yellow sand .", "gray rocks", "a long bridge over the waves"]
VARIABLES = ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR", "WANDB_MODE", "WANDB_PROJECT")
Training = tuple[bytes, list[dict[str, Any]]]  # the weights, and the step records


def settings(report_to: str, mode: str = "offline") -> Tracking:
    return Tracking.model_validate({"report_to": report_to, "mode": mode})


def require_package(name: str) -> None:
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed; make test installs it")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder, and restore the trackers' variables afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tracking, "TRACKING", tmp_path / "tracking")
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_SILENT", "true")


@pytest.fixture
def train(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], recipe: Any, tmp_path: Path
) -> Callable[[str], Training]:
    """Fine-tune with a tracker."""

    def run(report_to: str) -> Training:
        model = adapted()
        rows, validation = (
            CaptionRows(pictures, [[text] for text in CAPTIONS], "caption en", "first", 1) for _ in "ab"
        )
        with tracked(settings(report_to), "mix-1") as options:
            run = TrainingRun(1, "cpu", tmp_path / f"{report_to}-states", tracking=options)
            result = finetune(model, processor, change(recipe, epochs=3), rows, validation, run)
        return save(trainable_weights(model)), result.records

    return run


def test_tensorboard_holds_the_losses_of_the_same_training(train: Callable[[str], Training], tmp_path: Path) -> None:
    require_package("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    weights, records = train("tensorboard")
    assert (weights, records) == train("none")
    (folder,) = (tmp_path / "tracking/mix-1").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("eval/loss")]
    expected = [(record["step"], record["validation_loss"]) for record in records if record.get("validation_loss")]
    assert len(expected) == 3
    assert losses == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in expected]


def test_wandb_records_the_same_training_offline(train: Callable[[str], Training], tmp_path: Path) -> None:
    require_package("wandb")
    import wandb

    assert train("wandb") == train("none")
    wandb.finish()
    wandb.teardown()
    files = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert any(name.startswith("tracking/mix-1/wandb/offline-run-") for name in files)
    (log,) = (content for name, content in files.items() if name.endswith(".wandb"))
    assert all(word in log for word in (b"mix-1", b"eval/loss", b"captioning"))
    assert not any(KEY.encode() in content for content in files.values())


def test_the_users_project_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: object())
    monkeypatch.setenv("WANDB_PROJECT", "sand")
    with tracked(settings("wandb", "online"), "mix-1"):
        values = [os.environ[name] for name in VARIABLES[1:]]
    assert values == [str(tmp_path / "tracking/mix-1"), "online", "sand"]
    with tracked(settings("wandb"), "mix-1", is_main=False) as options:
        assert options == {}


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    message = missing_package(settings(package))
    assert message is not None and "\n" not in message
    assert f"{package} is not installed; run `pip install -r requirements-tracking.txt`" in message
    with pytest.raises(UserError, match="requirements-tracking"), tracked(settings(package), "mix-1"):
        pytest.fail("the training must not start")
    assert missing_package(settings("none")) is None


def test_check_refuses_a_missing_package_before_any_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "report_to: none" in text
    (tmp_path / "params.yaml").write_text(text.replace("report_to: none", "report_to: wandb"), encoding="utf-8")
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(SystemExit):
        check.main()
    line = capsys.readouterr().err
    assert line.startswith("error: ") and "tracking.report_to: wandb is not installed" in line
    assert not (tmp_path / "data/checked.txt").exists()


def test_the_report_does_not_show_tracking() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert load_params(ROOT / "params.yaml").tracking == settings("none")
    changed = text.replace("report_to: none", "report_to: wandb").replace("mode: offline  ", "mode: online  ")
    assert changed != text
    assert strip_params(changed) == strip_params(text) and "report_to" not in strip_params(text)
