"""Every case of dirty input has the outcome that `python -m tests.helpers.dirty` prints."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioning.base.errors import UserError
from captioning.data.readers.folder.forms import read_folder
from captioning.data.readers.rows import Source
from captioning.evaluation.predictions import read_predictions
from captioning.images.table import CaptionedImage
from captioning.params.load import load_params
from tests.helpers.dirty import AS_IT_IS, REFUSED, REPAIRED, SET_ASIDE, Case
from tests.helpers.dirty import __main__ as corpus
from tests.helpers.project_copy import ROOT


def each_case(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def check_outcome(read: Callable[[], Any], case: Case, path: Path) -> Any:
    """Return what `read` returns, or check that it raises one error of few printable lines, which names the file."""
    if case.outcome != REFUSED:
        return read()
    with pytest.raises(UserError) as caught:
        read()
    message = str(caught.value)
    assert message.startswith(str(path)) and case.message in message
    assert all(line.isprintable() for line in message.split("\n"))
    assert len(message.split("\n")) <= 22 and len(message) < 10_000


def read(path: Path) -> tuple[dict[str, CaptionedImage], Source]:
    source = read_folder(path)
    return {image.id: image for image in source}, source


def test_the_cases_differ_and_the_page_holds_their_counts() -> None:
    for cases in corpus.KINDS.values():
        assert len({case.name for case in cases}) == len(cases)
        for case in cases:
            assert case.outcome in corpus.OUTCOMES and bool(case.message) == (case.outcome != AS_IT_IS)
    document = ROOT / "docs/dirty-input.md"
    assert document.read_text(encoding="utf-8") == corpus.summary(), "run `python -m tests.helpers.dirty --summary`"


@each_case(corpus.images.CASES)
def test_an_image(tmp_path: Path, case: Case) -> None:
    corpus.tables.good_folder(tmp_path)
    (tmp_path / "a.jpg").write_bytes(content := case.make())
    by_id, source = read(tmp_path)
    assert by_id["b"].image == (tmp_path / "b.jpg").read_bytes()
    if case.outcome == SET_ASIDE:
        (aside,) = source.set_aside
        assert "a" not in by_id and (aside.line, aside.image) == (2, "a.jpg")
        assert aside.reason.startswith(case.message) and aside.reason.isprintable()
        return
    assert source.set_aside == []
    if case.outcome == AS_IT_IS:
        assert by_id["a"].image == content and not source.fired_rules
        return
    assert source.fired_rules[case.message] == 1
    with Image.open(io.BytesIO(by_id["a"].image)) as image:
        assert (image.mode, image.format, "transparency" in image.info) == ("RGB", "PNG", False)


@each_case(corpus.tables.TABLES + corpus.tables.FOLDERS)
def test_a_table(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "raw"
    corpus.tables.good_folder(path)
    if case in corpus.tables.FOLDERS:
        case.make(path)
    else:
        (path / "captions.csv").write_bytes(content := case.make(corpus.tables.GOOD))
        assert content != corpus.tables.GOOD
    location = path if case in corpus.tables.FOLDERS else path / "captions.csv"
    outcome = check_outcome(lambda: read(path), case, location)
    if outcome is None:
        return
    by_id, source = outcome
    if case.outcome == SET_ASIDE:
        assert tuple(by_id) == case.result
        assert any(aside.reason.startswith(case.message) for aside in source.set_aside)
        assert all(aside.reason.isprintable() for aside in source.set_aside)
        return
    assert source.set_aside == []
    first = case.result if isinstance(case.result, str) else "A port ."
    assert next(iter(by_id.values())).captions[0] == first and by_id["b"].captions == tuple(corpus.tables.CAPTIONS)
    assert source.fired_rules == ({case.message: 1} if case.outcome == REPAIRED else {})
    assert isinstance(case.result, str) or tuple(by_id) == case.result


@each_case(corpus.parameters.CASES)
def test_params(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content := case.make(corpus.parameters.GOOD))
    assert content != corpus.parameters.GOOD
    params = check_outcome(lambda: load_params(path), case, path)
    assert params is None or params.seeds == [1]


@each_case(corpus.captioned.CASES)
def test_predictions(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "mix-1.jsonl"
    path.write_bytes(case.make)
    predictions = check_outcome(lambda: read_predictions(path, corpus.captioned.IDS), case, path)
    assert predictions is None or [prediction.id for prediction in predictions] == corpus.captioned.IDS


@pytest.fixture(scope="module")
def adapter_folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from peft import get_peft_model

    from captioning.adapters.lora import lora_config, save_adapter
    from captioning.paligemma.model import load_quantised

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("good") / "mix-1"
    model = get_peft_model(load_quantised(checkpoint, "float32", "cpu"), lora_config(4, 8.0, 0.0, False, "table2"))
    save_adapter(model, path, "# card\n")
    return path


@each_case(corpus.models.ADAPTERS)
def test_an_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path, adapter_folder: Path, case: Case
) -> None:
    from captioning.adapters.lora import load_adapter
    from captioning.paligemma.model import load_quantised

    path = Path(shutil.copytree(adapter_folder, tmp_path / "mix-1"))
    case.make(path)
    monkeypatch.chdir(tmp_path)
    base = load_quantised(checkpoint, "float32", "cpu")
    model = check_outcome(lambda: load_adapter(base, path), case, path)
    assert model is None or model.peft_config
    assert not (tmp_path / "unpickled").exists()


@each_case(corpus.models.CHECKPOINTS)
def test_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path, case: Case) -> None:
    """Both the stages and the check of a local folder before any stage refuse it."""
    from captioning.checkpoints.fetch import explain_unavailable
    from captioning.paligemma.model import load_frozen, load_processor

    path = Path(shutil.copytree(checkpoint, tmp_path / "mix"))
    case.make(path)
    monkeypatch.chdir(tmp_path)
    check_outcome(lambda: (load_frozen(path, "float32", "cpu", True), load_processor(path)), case, path)
    if case.outcome == REFUSED:
        assert "tensor" in case.name or explain_unavailable("folder", str(path), "main", tmp_path) is not None
    assert not (tmp_path / "unpickled").exists()
