"""An output is complete or absent, and a failure leaves the previous one."""

import math
from pathlib import Path

import pytest

from captioning.base.files import atomic_file, atomic_folder, write_json, write_records, write_text
from captioning.runtime.stage import stage_main


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.json"
    with atomic_file(path) as partial:
        partial.write_text("half", encoding="utf-8")
        assert not path.exists() and partial.parent == path.parent and partial.name.endswith(".partial")
    assert path.read_text(encoding="utf-8") == "half"
    assert names(tmp_path) == ["new", "new/scores.json"]


def test_a_failure_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(KeyError), atomic_file(path) as partial:
        partial.write_text("half", encoding="utf-8")
        raise KeyError
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["words.txt"]


def test_a_folder_replaces_the_previous_one_and_remains_of_a_killed_run(tmp_path: Path) -> None:
    partial, folder = tmp_path / ".recipes.partial", tmp_path / "recipes"
    for old in partial, folder:
        old.mkdir()
        (old / "removed.json").write_text("{}", encoding="utf-8")
    with atomic_folder(folder) as partial:
        assert names(partial) == []
        write_json(partial / "mix.json", {"rank": 4, "alpha": 1.5})
        assert names(folder) == ["removed.json"]
    assert names(tmp_path) == ["recipes", "recipes/mix.json"]
    assert (folder / "mix.json").read_bytes() == b'{\n "rank": 4,\n "alpha": 1.5\n}\n'


def test_a_failure_leaves_the_previous_folder(tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "mix.json").write_text("{}", encoding="utf-8")
    with pytest.raises(KeyError), atomic_folder(folder) as partial:
        (partial / "half.json").write_text("{", encoding="utf-8")
        raise KeyError
    assert names(tmp_path) == ["recipes", "recipes/mix.json"]


def test_a_file_does_not_replace_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(IsADirectoryError), atomic_file(folder):
        raise AssertionError("the block must not run")
    with pytest.raises(SystemExit) as ended:
        stage_main(lambda: write_text(folder, "captions"))()
    assert ended.value.code == 1 and names(tmp_path) == ["results", "results/notes.txt"]
    message = capsys.readouterr().err
    assert message.startswith(f"error: {folder}: Is a directory; ") and message.count("\n") == 1


def test_text_keeps_its_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "né\r\nx\n")
    assert (tmp_path / "a.csv").read_bytes() == b"n\xc3\xa9\r\nx\n"


def test_records_have_these_bytes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "steps.csv"
    records = [
        {"step": 1, "loss": 1 / 3, "learning_rate": 2e-5, "extra": 1},
        {"step": 10, "loss": None, "name": "a, b"},
        {"step": 1234567, "loss": math.nan, "learning_rate": 1.0},
    ]
    write_records(path, records, ("step", "loss", "learning_rate", "name"))
    assert path.read_bytes() == (b'step,loss,learning_rate,name\n1,0.333333,2e-05,\n10,,,"a, b"\n1234567,nan,1,\n')
