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


def os_error(number: int, path: str | None = "models/adapters/mix-1") -> OSError:
    return OSError(number, os.strerror(number), path)


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


def fail_with(error: BaseException) -> Callable[[], object]:
    def function() -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("captions.csv:17: 'a.png' has no captions"), "captions.csv:17: 'a.png' has no captions"),
        (os_error(errno.ENOENT), "models/adapters/mix-1 does not exist; run `dvc repro`"),
        (os_error(errno.EACCES), "models/adapters/mix-1: Permission denied; correct that, then "),
        (os_error(errno.ENOSPC), "models/adapters/mix-1: No space left on device; make room, then "),
        (RuntimeError("I/O error: No space left (os error 28)"), "the disk: no space left; make room, then "),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_status_1(
    error: Exception, line: str, capsys: pytest.CaptureFixture[str]
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


@pytest.mark.parametrize("error", [KeyError("x"), os_error(errno.EIO, None)])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    with pytest.raises(type(error)):
        stage_main(fail_with(error))()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interruption_is_one_line(number: int, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have ignored it
    handler = signal.getsignal(signal.SIGTERM)
    ended, text = failure(lambda: os.kill(os.getpid(), number), capsys)
    assert ended == status and text.startswith("interrupted; give the command again")
    assert signal.getsignal(signal.SIGTERM) == handler


def test_a_stage_receives_its_arguments_and_prints_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    arguments: list[object] = []

    @stage_main
    def main(name: str, seed: int = 0) -> None:
        arguments.extend([name, seed])

    main("mix", seed=3)
    assert arguments == ["mix", 3]
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(r"[\w.]+: \d+\.\d s, \d+\.\d\d GB\n", output.err), "time, and peak memory"


def test_the_words_of_the_command_line_become_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: list[object] = []

    def main(variant: str, seed: int) -> None:
        arguments.extend([variant, seed])

    monkeypatch.setattr("sys.argv", ["stages/qlora_train.py", "mix", "3"])
    command(main)
    assert arguments == ["mix", 3]


@pytest.mark.parametrize("words", [[], ["mix"], ["mix", "one"], ["mix", "1", "2"]])
def test_wrong_words_print_the_usage(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(variant: str, seed: int) -> None:
        raise AssertionError

    monkeypatch.setattr("sys.argv", ["stages/qlora_train.py", *words])
    with pytest.raises(SystemExit) as ended:
        command(main)
    text = capsys.readouterr().err
    assert ended.value.code == 2 and "python -m stages.qlora_train VARIANT SEED" in text and text.count("\n") == 1


def test_a_value_error_of_the_stage_is_not_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(name: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr("sys.argv", ["stages/checkpoint.py", "mix"])
    with pytest.raises(ValueError, match="mix"):
        command(main)
