"""`python -m captioning.serve` refuses mistakes in one line, before a model is loaded."""

import socket
from pathlib import Path

import pytest

from captioning.serve import command


@pytest.fixture(autouse=True)
def keep_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert command.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_without_gradio_one_line_says_what_to_install(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    error = refusal(capsys, "--model", "mix")
    assert error == "error: Gradio is not installed; pip install --no-deps -r requirements-serve.txt\n"


def test_a_mistake_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: name)
    assert refusal(capsys, "--model", "mixx").startswith("error: mixx: no such row")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        error = refusal(capsys, "--model", "mix", "--port", port)
    assert error.startswith(f"error: --host 127.0.0.1 --port {port}: address already in use; choose others")
    assert refusal(capsys, "--host", "no.such.host.invalid").startswith(
        "error: --host no.such.host.invalid --port 7860"
    )
    for wrong in ("-1", "65536", "http"):
        with pytest.raises(SystemExit):
            command.main(["--port", wrong])


def test_rows_are_all_trained_ones_or_those_named(project: Path) -> None:
    from captioning.params.load import load_params

    params = load_params()
    assert [row.name for row in command.find_rows(None, params)] == ["mix-1"]
    named = command.find_rows(["zero-shot-mix", "mix", "mix-1"], params)
    assert [row.name for row in named] == ["zero-shot-mix", "mix-1"]
    (project / "models/adapters/mix-1/adapter_config.json").unlink()
    with pytest.raises(command.UserError, match="no row is trained here"):
        command.find_rows(None, params)


def test_gradio_is_pinned_beside_the_projects_packages() -> None:
    """Each pin is a new package, or the same version: installing them changes nothing that outputs rest on."""
    root = Path(__file__).parents[2]
    pins = [
        dict(
            line.split(";")[0].strip().lower().replace("_", "-").split("==")
            for line in text.splitlines()
            if "==" in line
        )
        for text in ((root / name).read_text() for name in ("requirements.txt", "requirements-serve.txt"))
    ]
    assert not pins[0].keys() & pins[1].keys()
    tracking = (root / "requirements-tracking.txt").read_text().lower()
    for name, version in pins[1].items():
        if f"\n{name}==" in tracking:
            assert f"\n{name}=={version}\n" in tracking
    assert "gradio" in pins[1]
