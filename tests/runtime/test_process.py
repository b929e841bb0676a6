"""Each way in which a command ends is one line and an exit status."""

import pytest

from captioning.base.errors import UserError
from captioning.runtime.process import exit_status

FULL = OSError(28, "No space left on device")  # a write names no file


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("out.csv: it exists; choose another name"), 1, "error: out.csv: it exists; choose another name"),
        (FULL, 1, "error: the disk: No space left on device"),
        (PermissionError(13, "Permission denied", "out.csv"), 1, "error: out.csv: Permission denied"),
        (KeyboardInterrupt(), 130, "interrupted; the captions so far are kept"),
    ],
)
def test_an_error_is_one_line(error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise error

    assert exit_status(work, "interrupted; the captions so far are kept") == status
    assert capsys.readouterr().err == f"{line}\n"


def test_an_unexpected_error_is_not_hidden() -> None:
    with pytest.raises(OSError, match="odd"):
        exit_status(lambda: (_ for _ in ()).throw(OSError("odd")), "")
