"""DVC experiments on the small world: one that trains, the way back, and one outside the working tree."""

import csv
import re
from pathlib import Path

import pytest

from tests.helpers.project_copy import Experiment, Project

UNUSED_KEY = "profiles.paper.machine.threads"  # with the miniature, only check and report read it


@pytest.fixture(scope="module")
def experiment(world: Project, tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Run a clone with another rank, fewer rows and one baseline."""
    clone = world.clone(tmp_path_factory.mktemp("experiment") / "project")
    return clone.experiment("lora.rank=3", "rows=[base-r4,mix]", "scst.baselines=[greedy]")


def test_an_experiment_trains_what_its_change_affects(experiment: Experiment) -> None:
    project, result = experiment
    trained = {"qlora-train@mix-1", "generate@mix-1", "scst@mix-greedy-1", "generate-scst@mix-greedy-1"}
    emptied = {"checkpoint@paligemma2"}  # no row starts from it now
    assert set(result.ran) == trained | emptied | {"check", "recipes", "evaluate", "report", "viewer"}
    table = project.dvc("metrics", "diff").out
    assert re.search(r"metrics/CIDEr\.json\s+scst-mix-leave-one-out\s+[\d.]+\s+-", table), table  # its row is gone
    assert "base-r4" not in table
    assert re.search(r"params\.yaml\s+lora\.rank\s+16\s+3", project.dvc("params", "diff").out)
    experiments = csv.DictReader(project.dvc("exp", "show", "--csv").out.splitlines())
    assert {"16", "3"} == {row["lora.rank"] for row in experiments}
    page = Path(project.dvc("plots", "diff").out.strip().removeprefix("file://"))
    assert "mix-1.csv" in page.read_text(encoding="utf-8")


def test_going_back_trains_nothing(experiment: Experiment, world: Project) -> None:
    """The run cache restores the outputs of the first values."""
    project, _ = experiment
    params = world.yaml("params.yaml")
    rows, baselines = (f"[{','.join(names)}]" for names in (params["rows"], params["scst"]["baselines"]))
    _, back = project.experiment(f"lora.rank={params['lora']['rank']}", f"rows={rows}", f"scst.baselines={baselines}")
    assert not re.search("qlora-train|scst|generate|checkpoint", " ".join(back.ran)), back.ran
    page = "plots/report.html"  # it quotes params.yaml, which -S has reformatted
    assert project.outputs(page, "data/checked.txt") == world.outputs(page, "data/checked.txt")


def test_an_experiment_outside_the_working_tree(world: Project, tmp_path: Path) -> None:
    """The change trains nothing. tests/test_own_images.py shows the queue."""
    project = world.clone(tmp_path / "project")
    before = project.outputs()
    assert project.dvc("exp", "run", "--temp", "-S", f"{UNUSED_KEY}=3").ran == ["check", "report"]
    experiments = csv.DictReader(project.dvc("exp", "show", "--csv").out.splitlines())
    assert "3" in {row[UNUSED_KEY] for row in experiments}
    assert project.outputs() == before, "the working tree must not change"
