"""The stage `download`: what was read of how many rows stands in the manifest, and is told where it is a part."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from captioning.params import Data
from stages import download
from tests.project_copy import draw_folder


@pytest.mark.parametrize(("wanted", "read", "told"), [(40, 40, "40 of 50 rows drawn (data.images)\n"), (60, 50, "")])
def test_a_part_of_a_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    wanted: int, read: int, told: str,
) -> None:  # fmt: skip
    draw_folder(tmp_path / "raw", images=50)
    data = Data(source="folder", path="raw", images=wanted, image_size=64, seed=1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "load_params", lambda: SimpleNamespace(data=data))
    download.main()
    manifest = json.loads((tmp_path / "data/captions/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["rows"], manifest["rows_read"]) == (50, read)
    assert ("rows drawn" in (errors := capsys.readouterr().err)) is bool(told)
    assert errors.startswith(told)
