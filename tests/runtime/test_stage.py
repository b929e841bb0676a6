"""A user's mistake is one line and exit status 1, an interruption one line; a bug keeps its traceback."""

import errno
import os
import re
import resource
import shutil
import signal
import tempfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from captioning.base.errors import UserError
from captioning.runtime.stage import command, stage_main


def test_a_users_mistake_is_its_line_and_exit_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    @stage_main
    def main() -> None:
        raise UserError("captions.csv:17: 'a.png' has no captions; every image needs one")

    with pytest.raises(SystemExit) as exit_:
        main()
    captured = capsys.readouterr()
    assert exit_.value.code == 1
    assert captured.err == "error: captions.csv:17: 'a.png' has no captions; every image needs one\n"
    assert captured.out == ""


def test_a_missing_input_is_one_line_with_its_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    @stage_main
    def main() -> None:
        (tmp_path / "train.txt").read_text(encoding="utf-8")

    with pytest.raises(SystemExit) as exit_:
        main()
    captured = capsys.readouterr()
    assert exit_.value.code == 1
    assert captured.err == f"error: {tmp_path / 'train.txt'} is not there; run `dvc repro`, which makes it\n"
    assert captured.out == ""


def test_a_bug_keeps_its_traceback() -> None:
    @stage_main
    def main() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        main()


def test_a_stage_gets_its_arguments_and_tells_its_time_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[object] = []

    @stage_main
    def main(name: str, seed: int = 0) -> None:
        seen.extend([name, seed])

    main("mix", seed=3)
    assert seen == ["mix", 3]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"[\w.]+: \d+\.\d s, \d+\.\d\d GB\n", captured.err), "time, and memory at its peak"


def test_a_command_lines_words_become_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def main(variant: str, seed: int) -> None:
        seen.extend([variant, seed])

    monkeypatch.setattr("sys.argv", ["stages/qlora_train.py", "mix", "3"])
    command(main)
    assert seen == ["mix", 3]


@pytest.mark.parametrize("words", [[], ["mix"], ["mix", "one"], ["mix", "1", "2"]])
def test_other_words_are_told_what_is_wanted(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(variant: str, seed: int) -> None:
        raise AssertionError

    monkeypatch.setattr("sys.argv", ["stages/qlora_train.py", *words])
    with pytest.raises(SystemExit) as exit_:
        command(main)
    told = capsys.readouterr().err
    assert exit_.value.code == 2 and "python -m stages.qlora_train VARIANT SEED" in told and told.count("\n") == 1


def test_a_mistake_within_the_stage_is_not_taken_for_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def main(name: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr("sys.argv", ["stages/checkpoint.py", "mix"])
    with pytest.raises(ValueError, match="mix"):
        command(main)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interruption_is_one_line(number: int, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
    before = signal.getsignal(signal.SIGTERM)

    @stage_main
    def main() -> None:
        os.kill(os.getpid(), number)

    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == status
    said = capsys.readouterr().err
    assert said == "interrupted; give the command again, and it goes on from the last state that was kept\n"
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_full_disk_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    @stage_main
    def main() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "models/adapters/mix-1")

    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: models/adapters/mix-1: No space left on device; make room, then ")
    assert said.count("\n") == 1


def test_a_full_disk_is_one_line_where_a_library_meets_it(capsys: pytest.CaptureFixture[str]) -> None:
    @stage_main
    def main() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        save_file({"a": np.zeros(1000)}, tmp / "a.safetensors")

    limits, tmp = resource.getrlimit(resource.RLIMIT_FSIZE), Path(tempfile.mkdtemp())
    try:
        with pytest.raises(SystemExit):
            main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        shutil.rmtree(tmp)
    assert capsys.readouterr().err.startswith("error: the disk: file too large; make room, then ")


def test_another_error_of_the_system_is_no_mistake() -> None:
    @stage_main
    def main() -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(OSError, match="Input/output"):
        main()
