"""The fuzzing of tools/fuzz.py in short, and that it would see a fault."""

from collections import Counter
from pathlib import Path

import pytest

from captioning.base.errors import UserError
from tests.helpers.dirty import tables
from tools import fuzz


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_only_user_errors_come_out(reader: str, tmp_path: Path) -> None:
    tables.good_folder(tmp_path)
    tried: Counter[str] = Counter()
    fuzz.fuzz(reader, 200, 0, tmp_path, tried)
    assert tried[reader] >= 200 and tried[f"{reader} taken"] > 0 and tried[f"{reader} refused"] > 20


@pytest.mark.parametrize("error", [ValueError("x"), UserError("elsewhere: x"), UserError("{place}: \x1b[2J")])
def test_a_fault_is_seen(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(content: bytes, place: Path) -> None:
        raise type(error)(str(error).replace("{place}", str(place)))

    monkeypatch.setitem(fuzz.READERS, "predictions", (fuzz.READERS["predictions"][0], broken))
    with pytest.raises((ValueError, AssertionError)):
        fuzz.fuzz("predictions", 5, 0, tmp_path, Counter())
