"""An edit of a package makes DVC run exactly the stages that its files may change; `dvc status` names them."""

import re
from pathlib import Path

import pytest

from tests.helpers.project_copy import Project

CAPTIONED = {"zero-shot", "generate", "generate-scst"}
TRAINED = {"checkpoint", "qlora-train", "scst"}
EDITS = {
    "captioning/report/figures.py": {"report"},
    "captioning/evaluation/rows.py": {"evaluate", "report"},
    "captioning/metrics/bootstrap.py": {"caption-stats", "scst", "evaluate", "report"},
    "captioning/data/splits.py": {"check", "download", "split", "caption-stats"},
    "captioning/decoding.py": {"scst", *CAPTIONED},
    "captioning/scst/loss.py": {"scst"},
    "captioning/supervised/finetune.py": {"qlora-train"},
    "captioning/training/trainer.py": TRAINED,
    "captioning/compute/seeds.py": TRAINED | CAPTIONED,
    "captioning/params/recipe.py": {"recipes"},
    "captioning/runtime/progress.py": set(),
    "captioning/limits/memory.py": set(),
    "captioning/commands/publish.py": set(),
    "pipeline/runner.py": set(),
}


@pytest.fixture(scope="module")
def project(world: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return world.clone(tmp_path_factory.mktemp("rooms") / "project")


@pytest.mark.parametrize("file", EDITS)
def test_an_edit_affects_its_stages(file: str, project: Project) -> None:
    path = Path(project.folder / file)
    content = path.read_bytes()
    path.write_bytes(content + b"# edited\n")
    try:
        status = project.dvc("status").out
    finally:
        path.write_bytes(content)
    stages = re.findall(r"^([\w-]+)[^:\s]*:$", status, re.MULTILINE)
    assert {name.partition("@")[0] for name in stages} == EDITS[file], status
