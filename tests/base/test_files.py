"""An output is there whole or not at all, and a failure leaves what was there before."""

from pathlib import Path

import pytest

from captioning.base.files import atomic_file, atomic_folder, write_json, write_text
from captioning.runtime.stage import stage_main


def names(folder: Path) -> list[str]:
    return sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*"))


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.json"
    with atomic_file(path) as partial:
        partial.write_text("half", encoding="utf-8")
        assert not path.exists() and partial.parent == path.parent and partial.name.endswith(".partial")
    assert path.read_text(encoding="utf-8") == "half"
    assert names(tmp_path) == ["new", "new/scores.json"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(KeyError), atomic_file(path) as partial:
        partial.write_text("half", encoding="utf-8")
        raise KeyError
    assert path.read_text(encoding="utf-8") == "old"
    assert names(tmp_path) == ["words.txt"]


def test_a_folder_replaces_the_one_before_and_what_a_killed_run_left(tmp_path: Path) -> None:
    left, folder = tmp_path / ".recipes.partial", tmp_path / "recipes"
    for one in left, folder:
        one.mkdir()
        (one / "removed.json").write_text("{}", encoding="utf-8")
    with atomic_folder(folder) as partial:
        assert names(partial) == []
        write_json(partial / "mix.json", {"rank": 4, "alpha": 1.5})
        assert names(folder) == ["removed.json"]
    assert names(tmp_path) == ["recipes", "recipes/mix.json"]
    assert (folder / "mix.json").read_bytes() == b'{\n "rank": 4,\n "alpha": 1.5\n}\n'


def test_a_failing_folder_leaves_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "mix.json").write_text("{}", encoding="utf-8")
    with pytest.raises(KeyError), atomic_folder(folder) as partial:
        (partial / "half.json").write_text("{", encoding="utf-8")
        raise KeyError
    assert names(tmp_path) == ["recipes", "recipes/mix.json"]


def test_no_file_takes_a_folders_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(IsADirectoryError), atomic_file(folder):
        raise AssertionError("nothing is written first")
    with pytest.raises(SystemExit) as ended:
        stage_main(lambda: write_text(folder, "captions"))()
    assert ended.value.code == 1 and names(tmp_path) == ["results", "results/mine.txt"]
    said = capsys.readouterr().err
    assert said.startswith(f"error: {folder}: Is a directory; put it right") and said.count("\n") == 1


def test_text_is_these_bytes(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "né\r\nx\n")
    assert (tmp_path / "a.csv").read_bytes() == b"n\xc3\xa9\r\nx\n"
