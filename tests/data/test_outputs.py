"""A damaged file of a stage is one line with the field and the remedy; a written file is read as it was."""

import json
from pathlib import Path

import pytest

from captioning.base.errors import UserError
from captioning.data.outputs import Lengths, Manifest
from captioning.evaluation.outputs import RowTest
from tests.helpers.invented_run import MANIFEST

LENGTHS = b'{"mean": 12.1, "median": 12.0, "mode": 11, "minimum": 3, "maximum": 50}'


def test_a_written_file_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(MANIFEST.model_dump()))
    assert Manifest.read(path) == MANIFEST
    alone = {"low": 1.5, "high": 2.5, "letters": None}
    assert RowTest(**alone).model_dump() == alone, "a row with one part has no key for its parts"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (LENGTHS[:-9], "Invalid JSON: EOF"),
        (b"[]", "Input should be an object"),
        (LENGTHS.replace(b"mode", b"m\\u001b"), "mode: Field required"),
        (LENGTHS.replace(b"11", b'"11"'), "mode: Input should be a valid integer"),
    ],
)
def test_a_damaged_file_is_one_line_with_the_remedy(content: bytes, fault: str) -> None:
    with pytest.raises(UserError) as error:
        Lengths.parse("data/lengths.json", content)
    message = str(error.value)
    assert message.startswith(f"data/lengths.json: {fault}") and "\n" not in message
    assert message.endswith("; run `dvc repro`, which writes it again")
