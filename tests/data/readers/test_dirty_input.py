"""Every case of the corpus of dirty input has the outcome its line in docs/dirty-input.md says."""

import csv
import io
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioning.base.errors import UserError
from captioning.data.readers.folder import read_folder
from captioning.data.readers.rows import Source
from captioning.evaluation.predictions import read_predictions
from captioning.images.table import CaptionedImage
from captioning.metrics.ptb import tokenize
from captioning.params.load import load_params
from tests.helpers.dirty import (
    AS_IT_IS,
    OUTCOMES,
    REFUSED,
    REPAIRED,
    SET_ASIDE,
    Case,
    captioned,
    images,
    models,
    parameters,
    tables,
)
from tests.helpers.dirty.__main__ import KINDS, summary
from tests.helpers.project_copy import ROOT, Project, copy_project

ALL = [case for cases in KINDS.values() for case in cases]


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def refused(read: Callable[[], Any], case: Case, path: Path) -> None:
    """One error of few printable lines, which names the file and says what the case says."""
    with pytest.raises(UserError) as caught:
        read()
    message = str(caught.value)
    assert message.startswith(str(path)) and case.message in message
    assert all(line.isprintable() for line in message.split("\n"))
    assert len(message.split("\n")) <= 22 and len(message) < 10_000


def read(path: Path) -> tuple[list[CaptionedImage], Source]:
    source = read_folder(path)
    return list(source), source


def test_the_corpus_is_large_and_every_case_is_told_once() -> None:
    assert len(ALL) >= 60
    assert all(len({case.name for case in cases}) == len(cases) for cases in KINDS.values())
    assert all(case.outcome in OUTCOMES and bool(case.message) == (case.outcome != AS_IT_IS) for case in ALL)


def test_the_page_is_written_from_the_corpus() -> None:
    document = ROOT / "docs/dirty-input.md"
    assert document.read_text(encoding="utf-8") == summary(), "run `python -m tests.helpers.dirty --summary`"


@each(images.CASES)
def test_an_image(tmp_path: Path, case: Case) -> None:
    tables.good_folder(tmp_path)
    (tmp_path / "a.jpg").write_bytes(content := case.make())
    found, source = read(tmp_path)
    by_id = {one.id: one.image for one in found}
    assert by_id["b"] == (tmp_path / "b.jpg").read_bytes(), "its neighbour suffered"
    if case.outcome == SET_ASIDE:
        assert "a" not in by_id and [(one.line, one.image) for one in source.set_aside] == [(2, "a.jpg")]
        assert source.set_aside[0].reason.startswith(case.message) and source.set_aside[0].reason.isprintable()
        return
    assert source.set_aside == []
    if case.outcome == AS_IT_IS:
        assert by_id["a"] == content and not source.fired_rules
        return
    assert source.fired_rules[case.message] == 1
    with Image.open(io.BytesIO(by_id["a"])) as image:
        assert (image.mode, image.format, "transparency" in image.info) == ("RGB", "PNG", False)


@each(tables.TABLES + tables.FOLDERS)
def test_a_table(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "raw"
    tables.good_folder(path)
    if case in tables.FOLDERS:
        case.make(path)
    else:
        (path / "captions.csv").write_bytes(changed := case.make(tables.GOOD))
        assert changed != tables.GOOD
    if case.outcome == REFUSED:
        refused(lambda: read(path), case, path / "captions.csv")
        return
    found, source = read(path)
    captions = {one.id: one.captions for one in found}
    if case.outcome == SET_ASIDE:
        assert tuple(captions) == case.result
        assert any(one.reason.startswith(case.message) for one in source.set_aside)
        assert all(one.reason.isprintable() for one in source.set_aside)
        return
    assert source.set_aside == []
    first = case.result if isinstance(case.result, str) else "A port ."
    assert captions["a"][0] == first and captions["b"] == tuple(tables.CAPTIONS)
    assert source.fired_rules == ({case.message: 1} if case.outcome == REPAIRED else {})
    assert isinstance(case.result, str) or tuple(captions) == case.result


def test_what_tokenisation_does_to_other_scripts() -> None:
    thai, emoji = "\u0e17\u0e48\u0e32\u0e40\u0e23\u0e37\u0e2d", "\U0001f6a2"
    assert list(tokenize([f"{thai} .", f"A port {emoji} .", "\u6e2f\u53e3 \u6709 ."])) == [
        thai, "a port", "\u6e2f\u53e3 \u6709",
    ]  # fmt: skip


@each(parameters.CASES)
def test_params(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(changed := case.make(parameters.GOOD))
    assert changed != parameters.GOOD
    if case.outcome == REFUSED:
        refused(lambda: load_params(path), case, path)
    else:
        assert load_params(path).seeds == [1]


@each(captioned.CASES)
def test_predictions(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "mix-1.jsonl"
    path.write_bytes(case.make)
    if case.outcome == REFUSED:
        refused(lambda: read_predictions(path, captioned.IDS), case, path)
    else:
        assert [one["id"] for one in read_predictions(path, captioned.IDS)] == captioned.IDS


@pytest.fixture(scope="module")
def checkpoint_folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path_factory.mktemp("good") / "checkpoint"))


@pytest.fixture(scope="module")
def adapter_folder(checkpoint_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from captioning.adapters.lora import attach_adapter, lora_config, save_adapter
    from captioning.paligemma.model import load_quantised

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("good") / "mix-1"
    model = attach_adapter(
        load_quantised(checkpoint_folder, "float32", "cpu"), lora_config(4, 8.0, 0.0, False, "table2")
    )
    save_adapter(model, path, "# card\n")
    return path


@each(models.ADAPTERS)
def test_an_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_folder: Path, adapter_folder: Path, case: Case
) -> None:
    from captioning.adapters.lora import load_adapter
    from captioning.paligemma.model import load_quantised

    path = Path(shutil.copytree(adapter_folder, tmp_path / "mix-1"))
    case.make(path)
    monkeypatch.chdir(tmp_path)
    base = load_quantised(checkpoint_folder, "float32", "cpu")
    if case.outcome == REFUSED:
        refused(lambda: load_adapter(base, path), case, path)
    else:
        assert load_adapter(base, path).peft_config
    assert not (tmp_path / "unpickled").exists()


@each(models.CHECKPOINTS)
def test_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_folder: Path, case: Case) -> None:
    """As the stages load one, and as a local folder of checkpoints is asked about before any works."""
    from captioning.checkpoints.fetch import explain_unavailable
    from captioning.paligemma.model import load_frozen, load_processor

    path = Path(shutil.copytree(checkpoint_folder, tmp_path / "mix"))
    case.make(path)
    monkeypatch.chdir(tmp_path)
    if case.outcome == REFUSED:
        refused(lambda: (load_frozen(path, "float32", "cpu", True), load_processor(path)), case, path)
        assert "tensor" in case.name or explain_unavailable("folder", str(path), "main") is not None
    else:
        load_frozen(path, "float32", "cpu", True)
        load_processor(path)
    assert not (tmp_path / "unpickled").exists()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy that reads a folder."""
    copy = copy_project(tmp_path_factory.mktemp("project"), ["mix"], [])
    copy.set_params({"profiles.miniature.data.source": "folder"})
    return copy


WHOLE = [case for case in tables.TABLES if case.name in ("UTF-16", "an open quote", "an incomplete row")]
UNREAD = [case for case in parameters.CASES if case.name == "a tag that runs a program"]


@each(WHOLE + UNREAD)
def test_a_stage_refuses_in_one_error_without_a_traceback(project: Project, case: Case) -> None:
    raw, params = project.folder / "data/raw", project.folder / "params.yaml"
    tables.good_folder(raw)
    before = params.read_bytes()
    if case in WHOLE:
        (raw / "captions.csv").write_bytes(case.make(tables.GOOD))
    else:
        params.write_bytes(case.make(before))
    done = project.run("python", "-m", "stages.download", ok=False)
    params.write_bytes(before)
    assert done.status == 1 and case.message in done.err
    assert done.err.count("error:") == 1 and "Traceback" not in done.all
    assert not (project.folder / "data/captions").exists()


def test_a_stage_lists_what_it_set_aside_so_that_no_spreadsheet_runs_it(project: Project) -> None:
    raw = project.folder / "data/raw"
    tables.good_folder(raw)
    (raw / "captions.csv").write_bytes(tables.with_name("=cmd()")(tables.GOOD).replace(b"b.jpg,A port", b"b.jpg,\x1b"))
    project.run("python", "-m", "stages.download")
    with (project.folder / "data/captions/set_aside.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["image", "line", "reason"],
        ["a.jpg", "0", "no row of captions.csv names it; add one with its captions"],
        ["'=cmd()", "2", "no such file"],
        ["b.jpg", "3", "caption_1 is nearly empty: '.'"],
    ]
    shutil.rmtree(project.folder / "data/captions")


def test_no_case_needs_the_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An address for a name is a name."""
    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a socket was opened"))
    tables.good_folder(tmp_path)
    (tmp_path / "captions.csv").write_bytes(tables.with_name("https://example.org/a.jpg")(tables.GOOD))
    assert [one.id for one in read(tmp_path)[0]] == ["b"]
