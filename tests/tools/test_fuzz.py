"""A short run of the fuzzer, and a proof that it notices faults."""

from collections import Counter
from pathlib import Path

import pytest

from captioning.base.errors import UserError
from tests.helpers.dirty import tables
from tools import fuzz


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_readers_raise_only_user_errors(reader: str, tmp_path: Path) -> None:
    tables.good_folder(tmp_path)
    counts: Counter[str] = Counter()
    fuzz.fuzz(reader, 200, 0, tmp_path, counts)
    assert counts[reader] >= 200 and counts[f"{reader} accepted"] > 0 and counts[f"{reader} refused"] > 20


@pytest.mark.parametrize("error", [ValueError("x"), UserError("elsewhere: x"), UserError("{folder}: \x1b[2J")])
def test_another_error_or_a_bad_message_is_noticed(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(content: bytes, scratch: Path) -> None:
        raise type(error)(str(error).replace("{folder}", str(scratch)))

    monkeypatch.setitem(fuzz.READERS, "params.yaml", (fuzz.READERS["params.yaml"][0], fail))
    with pytest.raises((ValueError, AssertionError)):
        fuzz.fuzz("params.yaml", 5, 0, tmp_path, Counter())
