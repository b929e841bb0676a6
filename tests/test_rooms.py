"""An edit of a package makes DVC run exactly the stages that its files may change; `dvc status` names them."""

from pathlib import Path

import pytest
from dvc.repo import Repo

from tests.helpers.project_copy import Project

LIBRARY = Path(__file__).parents[1] / "captioning"
CAPTIONED = {"zero-shot", "generate", "generate-scst"}
TRAINED = {"checkpoint", "qlora-train", "scst"}
EVERY_STAGE = {"check", "download", "split", "caption-stats", "recipes", "evaluate", "report", "viewer"}
EVERY_STAGE |= TRAINED | CAPTIONED
NO_OUTPUT = ("captioning/runtime/progress.py", "captioning/limits/memory.py", "captioning/commands/publish.py")
NO_OUTPUT += ("captioning/compare/text.py", "captioning/export/merge.py", "captioning/serve/page.py")
EDITS: dict[tuple[str, ...], set[str]] = {  # edited together, by the stages that run
    ("captioning/report/figures.py",): {"report"},
    ("captioning/report/viewer/marks.py",): {"report", "viewer"},
    ("captioning/evaluation/rows.py",): {"evaluate", "report", "viewer"},
    ("captioning/metrics/bootstrap.py",): {"caption-stats", "scst", "evaluate", "report", "viewer"},
    ("captioning/data/splits.py",): {"check", "download", "split", "caption-stats"},
    ("captioning/data/outputs.py",): EVERY_STAGE - TRAINED - CAPTIONED - {"recipes"},
    ("captioning/decoding.py",): {"scst", *CAPTIONED},
    ("captioning/scst/loss.py",): {"scst"},
    ("captioning/metrics/ptb.py",): {
        "caption-stats",
        "scst",
        "evaluate",
        "report",
        "viewer",
    },  # SCST rewards PTB tokens
    ("captioning/adapters/lora.py",): {"qlora-train", "scst", *CAPTIONED},
    ("captioning/checkpoints/tags.py",): {"check", "checkpoint"},
    ("captioning/paligemma/model.py",): {"check"} | TRAINED | CAPTIONED,
    ("captioning/images/table.py",): EVERY_STAGE - {"recipes"},
    ("captioning/base/files.py",): EVERY_STAGE,
    ("captioning/supervised/finetune.py",): {"qlora-train"},
    ("captioning/training/trainer.py",): TRAINED,
    ("captioning/compute/seeds.py",): TRAINED | CAPTIONED,
    ("captioning/params/recipe.py",): {"recipes"},
    ("captioning/params/packages.py",): {"check", "recipes"},
    ("captioning/data/pictures/tiff.py",): {"check", "download", "split", "caption-stats"},
    (*NO_OUTPUT, "pipeline/runner.py"): set(),
}


def test_every_package_is_edited() -> None:
    edited = {Path(file).parts[1] for files in EDITS for file in files if file.startswith("captioning/")}
    assert edited == {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").exists()} | {"decoding.py"}


@pytest.fixture(scope="module")
def project(world: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return world.clone(tmp_path_factory.mktemp("rooms") / "project")


@pytest.mark.parametrize("files", EDITS, ids=lambda files: files[0])
def test_an_edit_affects_its_stages(files: tuple[str, ...], project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder)
    contents = {path: path.read_bytes() for path in (project.folder / file for file in files)}
    for path, content in contents.items():
        path.write_bytes(content + b"# edited\n")
    try:
        with Repo() as repo:
            status = repo.status()
    finally:
        for path, content in contents.items():
            path.write_bytes(content)
    assert {name.partition("@")[0] for name in status} == EDITS[files], status
