"""The command on a small DVC repository: commits, the workspace, outputs that are nowhere, unknown revisions."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dvc.repo import Repo

from benchmarks.copies import AUTHOR
from captioning.compare.__main__ import main
from tests.conftest import png

OUTPUTS = ("data/captions", "data/splits", "data/predictions", "data/scores")
METRICS = [{"metrics/CIDEr.json": {"cache": False}}]
STAGE = {"stages": {"all": {"cmd": "true", "outs": list(OUTPUTS), "metrics": METRICS}}}
IDS = ("a", "b", "c", "d")


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, env=os.environ | AUTHOR)


def write_results(folder: Path, caption: str, ciders: tuple[float, ...]) -> None:
    """Write the outputs of one row, `mix`, that says the same caption of each image."""
    for path in OUTPUTS:
        (folder / path).mkdir(parents=True, exist_ok=True)
    (folder / "data/splits/test.txt").write_text("".join(f"{id_}\n" for id_ in IDS))
    images = [
        {"id": id_, "captions": [f"reference of {id_}"], "image": {"bytes": png((9, 9, 9)), "path": ""}} for id_ in IDS
    ]
    pq.write_table(pa.Table.from_pylist(images), folder / "data/captions/images.parquet")
    lines = [json.dumps({"id": id_, "caption": caption, "tokens": 3, "ended": True}) for id_ in IDS]
    (folder / "data/predictions/mix-1.jsonl").write_text("\n".join(lines) + "\n")
    scores: dict[str, Any] = {"CIDEr": sum(ciders) / 4, "BLEU-4": 1.0, "METEOR": 1.0, "ROUGE-L": 1.0, "length": 2.0}
    rows = {"mix": {"kind": "adapted", "mean": scores}}
    (folder / "data/scores/scores.json").write_text(json.dumps({"images": 4, "rows": rows}))
    (folder / "metrics").mkdir(exist_ok=True)
    (folder / "metrics/CIDEr.json").write_text(json.dumps({"mix": scores["CIDEr"]}))
    records = [{"row": "mix", "seed": 1, "id": id_, "CIDEr": cider} for id_, cider in zip(IDS, ciders, strict=True)]
    pq.write_table(pa.Table.from_pylist(records), folder / "data/scores/by-image.parquet")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with two commits of results, and a third state in the workspace."""
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    with Repo.init(str(tmp_path)) as repo:
        git(tmp_path, "commit", "--quiet", "--message", "Without a stage")
        git(tmp_path, "tag", "never-run")
        (tmp_path / "dvc.yaml").write_text(json.dumps(STAGE))
        for caption, ciders in (("a port", (10.0, 20.0, 30.0, 40.0)), ("a lake", (110.0, 125.0, 130.0, 140.0))):
            write_results(tmp_path, caption, ciders)
            repo.commit("all", force=True)
            git(tmp_path, "add", "--all")
            git(tmp_path, "commit", "--quiet", "--message", caption)
    for path in OUTPUTS:  # links into the cache must not be written through
        shutil.rmtree(tmp_path / path)
    write_results(tmp_path, "a park", (10.0, 20.0, 30.0, 41.0))
    return tmp_path


def test_two_commits_and_the_workspace(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["HEAD~1", "HEAD"]) == 0
    out = capsys.readouterr().out
    assert "mix 25.0 126.2 +101.2" in " ".join(out.split())
    assert "More than noise: mix (+101.2)." in out
    assert "b, mix: CIDEr 20.0 → 125.0 (+105.0)\n  before     a port\n  after      a lake" in out
    page = (project / "compare.html").read_text(encoding="utf-8")
    assert page.count("data:image/webp;base64,") == 4
    assert main(["HEAD~1", "--page", "other.html"]) == 0, "the default is what lies here"
    assert "<ins>park</ins>" in (project / "other.html").read_text(encoding="utf-8")
    assert "Within noise: mix." in capsys.readouterr().out


def test_what_cannot_be_had_is_one_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere"]) == 1
    assert capsys.readouterr().err.startswith("error: nowhere: no such commit, branch, tag or experiment")
    assert main(["HEAD:dvc.yaml"]) == 1, "a file's name in git"
    wrong = "error: HEAD:dvc.yaml: no such commit, branch, tag or experiment (no commit); "
    assert capsys.readouterr().err.startswith(wrong)
    assert main(["never-run", "HEAD"]) == 1
    assert capsys.readouterr().err.startswith("error: never-run: it has no data/scores/scores.json; name one")
    for page in ("compare", "data", "data/scores/scores.json/page.html"):
        (project / "compare").mkdir(exist_ok=True)
        assert main(["--page", page]) == 1
        assert capsys.readouterr().err.startswith(f"error: --page {page}: not a file in an existing, writable folder; ")
    with pytest.raises(SystemExit):
        main(["", "HEAD"])
    assert "an empty name" in capsys.readouterr().err
    shutil.rmtree(project / ".dvc/cache")
    assert main(["HEAD~1", "HEAD"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: HEAD~1: data/scores/scores.json is not in DVC's cache; ")
    assert error.count("\n") == 1


def test_experiments_are_listed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Repo(str(project)) as repo:
        repo.experiments.save(name="park")
    assert main(["--experiments"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:2] == ["CIDEr", "workspace"] and header.split()[-1] == "park"
    assert row.split() == ["mix", "25.2", "126.2", "25.2"]


def test_outside_a_repository(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "captioning.compare"]
    root = str(Path(__file__).parents[2])
    process = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": root, "PATH": ""}
    )
    assert process.returncode == 1
    assert process.stderr == "error: this folder is no DVC repository; change to the project's folder\n"
