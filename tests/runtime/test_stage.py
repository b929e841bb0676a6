"""A user's mistake is one line and exit status 1, an interruption one line; a bug keeps its traceback."""

import errno
import os
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from captioning.base.errors import UserError
from captioning.runtime.stage import command, stage_main


def failure(function: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """Run `function` as a stage, and return its exit status and its one line on stderr."""

    @stage_main
    def main() -> None:
        function()

    with pytest.raises(SystemExit) as ended:
        main()
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    return ended.value.code, output.err


def fail_with(error: Exception | int) -> Callable[[], object]:
    """Make a function that raises an error, or the system's error of this number."""

    def function() -> None:
        raise OSError(error, os.strerror(error), "models/mix-1") if isinstance(error, int) else error

    return function


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("captions.csv:17: 'a.png' has no captions"), "captions.csv:17: 'a.png' has no captions"),
        (errno.ENOENT, "models/mix-1 does not exist; run `dvc repro`"),
        (errno.EACCES, "models/mix-1: Permission denied; correct that, then "),
        (errno.ENOSPC, "models/mix-1: No space left on device; make room, then "),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_status_1(
    error: Exception | int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text = failure(fail_with(error), capsys)
    assert status == 1 and text.startswith(f"error: {line}")


def test_a_library_that_fills_the_disk_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        save_file({"a": np.zeros(1000)}, tmp_path / "a.safetensors")

    try:
        _, text = failure(save, capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert text.startswith("error: the disk: file too large; make room, then ")


@pytest.mark.parametrize("error", [KeyError("x"), errno.EIO])
def test_a_bug_keeps_its_traceback(error: Exception | int) -> None:
    with pytest.raises((KeyError, OSError)):
        stage_main(fail_with(error))()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interruption_is_one_line(number: int, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have ignored it
    handler = signal.getsignal(signal.SIGTERM)
    ended, text = failure(lambda: os.kill(os.getpid(), number), capsys)
    assert ended == status and text.startswith("interrupted; give the command again")
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_stage_prints_its_time_and_peak_memory(capsys: pytest.CaptureFixture[str]) -> None:
    stage_main(lambda: None)()
    output = capsys.readouterr()
    assert output.out == "" and re.fullmatch(r"[\w.]+: \d+\.\d s, \d+\.\d\d GB\n", output.err)


def call_with(monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[str, int]:
    """Call a stage with these words of the command line, and return its arguments."""
    arguments: list[tuple[str, int]] = []

    def main(variant: str, seed: int) -> None:
        if variant == "bad":
            raise ValueError(variant)
        arguments.append((variant, seed))

    monkeypatch.setattr("sys.argv", ["stages/qlora_train.py", *words])
    command(main)
    return arguments[0]


def test_the_words_of_the_command_line_become_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    assert call_with(monkeypatch, "mix", "3") == ("mix", 3)
    with pytest.raises(ValueError, match="bad"):  # of the stage itself
        call_with(monkeypatch, "bad", "3")


@pytest.mark.parametrize("words", [[], ["mix"], ["mix", "one"], ["mix", "1", "2"]])
def test_wrong_words_print_the_usage(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call_with(monkeypatch, *words)
    text = capsys.readouterr().err
    assert ended.value.code == 2 and "python -m stages.qlora_train VARIANT SEED" in text and text.count("\n") == 1
