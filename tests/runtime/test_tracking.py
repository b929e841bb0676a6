"""Tracking changes no byte of a training; a missing package is one line."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from captioning.adapters.card import model_card
from captioning.adapters.lora import count_parameters, save_adapter
from captioning.base.errors import UserError
from captioning.base.files import write_records
from captioning.params.load import Tracking, load_params
from captioning.runtime import tracking
from captioning.runtime.tracking import missing_package, tracked
from captioning.supervised.finetune import CaptionRows, finetune
from stages.report import shown_params

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef0123456789abcdef01234567"  # of the form that Weights & Biases takes
NEW = ["one white garden", "some yellow sand .", "gray rocks", "a long bridge over the waves"]
CARD_RECIPE: dict[str, Any] = {"checkpoint": {"name": "mix"}, "finetune": {"prompt": "caption en"}}


def settings(report_to: str, mode: str = "offline") -> Tracking:
    return Tracking.model_validate({"report_to": report_to, "mode": mode})


def needs(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed; make test installs it")


Outputs = dict[str, bytes]


@pytest.fixture
def train(
    adapted: Callable[..., Any], processor: Any, pictures: list[bytes], recipe: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Outputs]:  # fmt: skip
    """Fine-tunes and writes as the stage does, in a folder of its own; gives the outputs' bytes by path."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_SILENT", "true")

    def run(report_to: str) -> Outputs:
        folder = tmp_path / report_to
        folder.mkdir()
        monkeypatch.chdir(folder)
        model = adapted()
        rows, held = (CaptionRows(pictures, [[text] for text in NEW], "caption en", "first", 1) for _ in range(2))
        with tracked(settings(report_to), "mix-1") as reporting:
            done = finetune(
                model, processor, {"lora_plus": 1.0} | recipe | {"epochs": 3}, rows, held, 1, "cpu",
                tmp_path / f"{report_to}-states", **reporting,
            )  # fmt: skip
        save_adapter(model, Path("models/adapters/mix-1"), model_card("mix-1", CARD_RECIPE, count_parameters(model)))
        write_records(Path("plots/steps/mix-1.csv"), done.records, ("step", "epoch", "loss", "validation_loss"))
        return files(folder, hidden=False)

    return run


def files(folder: Path, hidden: bool) -> Outputs:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(found.items()) if name.startswith(".") is hidden}


@pytest.mark.parametrize("report_to", ["tensorboard", "wandb"])
def test_a_tracked_training_writes_the_same_bytes(train: Callable[[str], Outputs], report_to: str) -> None:
    needs(report_to)
    plain, reported = train("none"), train(report_to)
    assert "models/adapters/mix-1/adapter_model.safetensors" in plain
    assert reported == plain
    assert not any(KEY.encode() in content for content in reported.values())


def test_tensorboard_holds_the_log(train: Callable[[str], Outputs], tmp_path: Path) -> None:
    needs("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    records = train("tensorboard")["plots/steps/mix-1.csv"].decode().splitlines()
    (folder,) = (tmp_path / "tensorboard/.cache/tracking/mix-1").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    losses = [(event.step, event.value) for event in events.Scalars("eval/loss")]
    cells = [line.split(",") for line in records[1:]]
    expected = [(int(step), float(loss)) for step, _, _, loss in cells if loss]
    assert len(expected) == 3
    assert losses == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in expected]


def test_wandb_stays_here_and_knows_its_name(train: Callable[[str], Outputs], tmp_path: Path) -> None:
    needs("wandb")
    import wandb

    train("wandb")
    assert wandb.run is None
    hidden = files(tmp_path / "wandb", hidden=True)
    assert {name.split("/")[1] for name in hidden} == {"tracking"}
    logs = [content for name, content in hidden.items() if name.endswith(".wandb")]
    assert len(logs) == 1
    assert all(word in logs[0] for word in (b"mix-1", b"eval/loss", b"captioning"))
    assert any("/mix-1/wandb/offline-run-" in name for name in hidden)
    assert not any(KEY.encode() in content for content in hidden.values())


def test_scst_takes_the_same_options(tmp_path: Path) -> None:
    from captioning.scst.refine import scst_arguments

    needs("tensorboard")
    recipe = {
        "batch": 2, "epochs": 1, "learning_rate": 1e-3, "weight_decay": 0.0, "gradient_clip": 1.0,
        "scheduler": "constant", "validate_every": 1,
    }  # fmt: skip
    with tracked(settings("tensorboard"), "scst-mix-greedy-1") as reporting:
        arguments = scst_arguments(recipe, 1, "cpu", 4, tmp_path, **reporting)
    assert (arguments.report_to, arguments.run_name) == (["tensorboard"], "scst-mix-greedy-1")
    assert scst_arguments(recipe, 1, "cpu", 4, tmp_path).report_to == []


def test_only_the_first_process_reports() -> None:
    with tracked(settings("wandb"), "mix-1", is_main=False) as reporting:
        assert reporting == {}


def test_the_users_project_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: object())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with tracked(settings("wandb", "online"), "mix-1"):
        seen = {name: os.environ[name] for name in ("WANDB_PROJECT", "WANDB_MODE", "WANDB_DIR")}
    assert seen == {
        "WANDB_PROJECT": "mine",
        "WANDB_MODE": "online",
        "WANDB_DIR": str(tmp_path / ".cache/tracking/mix-1"),
    }
    assert os.environ["WANDB_PROJECT"] == "mine"
    assert "WANDB_MODE" not in os.environ


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    told = missing_package(settings(package))
    assert told is not None
    assert f"{package} is not installed; run `pip install -r requirements-tracking.txt`" in told
    assert "\n" not in told
    with pytest.raises(UserError, match="requirements-tracking"), tracked(settings(package), "mix-1"):
        pytest.fail("the training must not begin")
    assert missing_package(settings("none")) is None


def test_check_refuses_before_any_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own in which the package cannot be found."""
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "report_to: none" in text
    (tmp_path / "params.yaml").write_text(text.replace("report_to: none", "report_to: wandb"), encoding="utf-8")
    (tmp_path / "data").mkdir()
    code = (
        "import captioning.runtime.tracking as t; t.find_spec = lambda _: None; from stages.check import main; main()"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "tracking.report_to: wandb is not installed" in done.stderr
    assert not (tmp_path / "data/checked.txt").exists()


def test_no_recipe_and_no_page_holds_it() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    changed = text.replace("report_to: none", "report_to: wandb").replace("mode: offline  ", "mode: online  ")
    assert changed != text
    assert shown_params(changed) == shown_params(text)
    removed = [line for line in text.splitlines() if line not in shown_params(text).splitlines()]
    assert [line.split(":")[0].strip() for line in removed] == ["tracking", "report_to", "mode", "resume", "every"]
    assert "tracking" not in json.dumps([shown_params(text)])


def test_the_default_reports_nowhere() -> None:
    assert load_params(ROOT / "params.yaml").tracking == settings("none")


def test_pins_install_beside_the_others() -> None:
    """No package stands in both files, and each of its own is pinned."""
    own, others = (
        {line.split("==")[0].lower() for line in (ROOT / name).read_text().splitlines() if "==" in line}
        for name in ("requirements-tracking.txt", "requirements.txt")
    )
    assert {"tensorboard", "wandb"} <= own
    assert not own & others
