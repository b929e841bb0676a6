"""Experiments beside each other, a line for each row, in tables that fit a terminal."""

from captioning.compare.experiments import experiment_tables
from captioning.compare.text import align

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
