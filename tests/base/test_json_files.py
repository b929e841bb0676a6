"""A JSON file that is damaged, or of another form, is one line."""

from pathlib import Path

import pytest

from captioning.base.errors import UserError
from captioning.base.json_files import read_map


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "not JSON, or incomplete"),
        (b'{"finetune": {"lea', "not JSON, or incomplete"),
        (b"\xff\xfe", "not JSON, or incomplete"),
        (b"[" * 100_000, "not JSON, or incomplete"),
        (b"[]", r"\[\] is not a map"),
        (b'{"lora": 1}', "finetune missing"),
    ],
)
def test_a_wrong_json_file_is_one_line(content: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"mix\.json: {fault}; run `dvc repro`"):
        read_map(tmp_path / "mix.json", "lora", "finetune")


def test_a_byte_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "mix.json").write_bytes(b'{"lora": "caf\xe9"}')
    fault = r"mix\.json: byte 0xe9 at 13 is not UTF-8; save it in UTF-8, or run `dvc repro`"
    with pytest.raises(UserError, match=fault):
        read_map(tmp_path / "mix.json", "lora")
