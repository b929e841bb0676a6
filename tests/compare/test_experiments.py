"""Experiments beside each other, a line for each row, in tables that fit a terminal."""

import fcntl
import json
import os
import pty
import re
import shlex
import struct
import subprocess
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from dvc.repo import Repo

from benchmarks.copies import ROOT, set_values
from captioning.compare.experiments import experiment_tables
from captioning.compare.text import align
from captioning.params.load import load_params
from tests.compare.test_command import git

COLUMNS = 120  # of the terminal
STAGE = {"stages": {"all": {"cmd": "true", "params": ["lora"], "metrics": [{"metrics/CIDEr.json": {"cache": False}}]}}}
CIDERS = {"workspace": {"mix": 280.72, "new": 1.0}, "main": {"mix": 279.52, "base-r4": 277.08}}


def test_each_row_has_a_line_and_each_experiment_a_column() -> None:
    (table,) = experiment_tables(CIDERS)
    assert table == (
        ["CIDEr", "workspace", "main"],
        [["mix", "280.7", "279.5"], ["new", "1.0", "–"], ["base-r4", "–", "277.1"]],
    )


def test_many_experiments_are_several_tables_of_the_width() -> None:
    many = {f"experiment-{number}": {"scst-mix-leave-one-out": float(number)} for number in range(20)}
    tables = experiment_tables(many, width=100)
    assert [name for header, _ in tables for name in header[1:]] == list(many)
    assert len(tables) > 1
    lines = [line for table in tables for line in align(*table)]
    assert 80 < max(map(len, lines)) <= 100


def test_without_experiments_there_is_no_line() -> None:
    assert experiment_tables({"workspace": {}}) == [(["CIDEr", "workspace"], [])]


def test_the_readmes_dvc_exp_show_has_room_for_each_row_that_lora_rank_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows are those of params.yaml; those that are left out equal the base's."""
    params = load_params(ROOT / "params.yaml")
    changed = [row for row in params.rows if params.variants[row].rank is None]
    changed += [f"scst-mix-{baseline}" for baseline in params.scst.baselines]
    ciders = json.loads((ROOT / "metrics/CIDEr.json").read_text(encoding="utf-8"))
    assert len(changed) == 6 and ciders.keys() > set(changed)
    (command,) = re.findall(
        r"^    (dvc exp show .*?) +#", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )

    monkeypatch.chdir(tmp_path)
    (tmp_path / "metrics").mkdir()
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text(json.dumps(STAGE))
    write_ciders(tmp_path, ciders)
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    with Repo.init(str(tmp_path)) as repo:
        repo.commit("all", force=True)
        git(tmp_path, "add", "--all")
        git(tmp_path, "commit", "--quiet", "--message", "Base")
        set_values(tmp_path / "params.yaml", {"lora.rank": 4})
        write_ciders(tmp_path, ciders | {row: ciders[row] - 2.34 for row in changed})
        repo.experiments.save(name="pudgy-nouns", force=True)
    git(tmp_path, "checkout", "--quiet", ".")

    header, *lines = [line.split() for line in show_in_terminal(tmp_path, command) if line.strip(" ─")]
    assert header == ["Experiment", *changed]
    base, experiment = (next(line for line in lines if name in line) for name in ("main", "[pudgy-nouns]"))
    assert [float(cell) for cell in base[-6:]] == [ciders[row] for row in changed]
    assert [round(float(cell) + 2.34, 2) for cell in experiment[-6:]] == [ciders[row] for row in changed]


def write_ciders(folder: Path, ciders: dict[str, float]) -> None:
    rounded = {row: round(cider, 2) for row, cider in ciders.items()}
    (folder / "metrics/CIDEr.json").write_text(json.dumps(rounded), encoding="utf-8")


def show_in_terminal(folder: Path, command: str) -> list[str]:
    """Return the lines that a command prints in a terminal of `COLUMNS` columns, without colours."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    environment |= {"PAGER": "cat", "TERM": "xterm", "DVC_NO_ANALYTICS": "1"}
    process = subprocess.Popen(shlex.split(command), cwd=folder, stdout=theirs, env=environment)
    os.close(theirs)
    shown = bytearray()
    with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # it ends with an error on Linux
        while part := terminal.read(1 << 16):
            shown += part
    assert process.wait() == 0
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown.decode()).splitlines()
    assert lines and max(map(len, lines)) <= COLUMNS
    return lines
