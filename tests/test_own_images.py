"""DVC's own ways work on own images, with spaces and accents in their paths, in a locale without UTF-8.

DVC itself cannot run an experiment outside the working tree of a project whose own path is not ASCII.
"""

import csv
import shutil
from pathlib import Path

import pytest

from tests.helpers.project_copy import Finished, Project, copy_project, draw_folder

IMAGES = "profiles.miniature.data.images"
PATH = "profiles.miniature.data.path"
MINE = "data/raw/my im\u00e1ges"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that reads a folder below data/raw, added to DVC; `pictures` lie beside the project."""
    folder = tmp_path_factory.mktemp("with spaces")
    project = copy_project(folder / "my project", ["mix"], zero_shot=[])
    data = {"profiles.miniature.data.source": "folder", "profiles.miniature.data.set_aside": "allow"}
    project.set_params(data | {PATH: MINE})
    pictures = Project(folder / "pictures")
    draw_folder(pictures.folder / "overhead \u00e9", 50)
    shutil.copytree(pictures.folder / "overhead \u00e9", project.folder / MINE)
    project.dvc("add", MINE)
    project.commit("My images")
    assert f"{MINE}.dvc" in project.run("git", "ls-files", "-z").out.split("\0")
    return project


@pytest.fixture(autouse=True)
def _no_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.delenv("LANG", raising=False)


def pictures_beside(project: Project) -> Path:
    return project.folder.parent / "pictures/overhead \u00e9"


def read_images(project: Project, *options: str, ok: bool = True) -> Finished:
    return project.dvc("exp", "run", *options, "download", ok=ok)


def test_images_that_dvc_tracks_are_read_and_found_in_an_experiment(project: Project) -> None:
    """Then a changed image, an experiment outside the working tree, and one from the queue."""
    result = project.dvc("repro", "download")
    assert result.ran == ["check", "download"] and f"{MINE}: captions.csv (RISC)" in result.all
    (project.folder / MINE / "resized/RSICD_5.jpg").unlink()
    assert "download" in project.dvc("repro", "download").ran
    project.commit("One image less")
    before = project.outputs()
    temp = read_images(project, "--temp", "-S", f"{IMAGES}=45")
    assert temp.ran == ["check", "download"] and "45 of 50 rows drawn" in temp.all
    read_images(project, "--queue", "-S", f"{IMAGES}=44")
    assert "44 of 50 rows drawn" in project.dvc("exp", "run", "--run-all").all
    assert "Success" in project.dvc("queue", "status").out
    experiments = csv.DictReader(project.dvc("exp", "show", "--csv").out.splitlines())
    assert {"44", "45"} <= {row[IMAGES] for row in experiments}
    assert project.outputs() == before, "the working tree must not change"


def test_a_project_is_reproduced_at_a_path_with_accents(project: Project, tmp_path: Path) -> None:
    clone = project.clone(tmp_path / "d \u00e9 spaces")
    (clone.folder / "dvc.lock").unlink(missing_ok=True)
    result = clone.run("python", "-m", "pipeline.jobs", "download")
    assert "download" in result.started and "failed" not in result.err
    assert (clone.folder / "data/captions/images.parquet").is_file()  # read here, or from the run cache


def test_images_that_git_and_dvc_do_not_track_are_named_in_an_experiment(project: Project) -> None:
    shutil.copytree(pictures_beside(project), project.folder / "data/raw/loose")
    change = ("-S", f"{PATH}=data/raw/loose")
    refused = read_images(project, "--temp", *change, ok=False)
    assert refused.status and "data/raw/loose: no such folder; " in refused.all
    assert "run `dvc add` for your images and commit the .dvc file, or give `dvc exp run` the option" in refused.all
    assert "Traceback" not in refused.all
    copied = read_images(project, "--temp", "--copy-paths", "data/raw/loose", *change)
    assert "data/raw/loose: captions.csv (RISC)" in copied.all


@pytest.mark.parametrize("command", ["import", "import-url"])
def test_imported_images_are_read(project: Project, command: str) -> None:
    """From another repository, and from a folder."""
    pictures, name = pictures_beside(project), f"from {command}"
    if command == "import":
        other = Project(pictures.parent)
        for words in (("git", "init", "--quiet"), ("dvc", "init", "--quiet"), ("dvc", "add", "--quiet", pictures.name)):
            other.run(*words)
        other.commit("Pictures")
        project.dvc("import", str(pictures.parent), pictures.name, "-o", f"data/raw/{name}")
    else:
        project.dvc("import-url", str(pictures), f"data/raw/{name}")
    assert f"data/raw/{name}.dvc" in project.run("git", "status", "--porcelain", "-z").out
    project.set_params({PATH: f"data/raw/{name}"})
    assert f"data/raw/{name}: captions.csv (RISC)" in project.dvc("repro", "download").all
