"""No token reaches a file, a log, an error or an adapter.

Fake tokens are in the environment, and everything written or printed is searched for them, also in the small world.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from captioning.base.errors import UserError
from captioning.commands.publish import Parcel, check_secrets
from captioning.data import hub
from captioning.params.load import load_params
from captioning.params.sections import Tracking
from captioning.runtime.redaction import MASK, redact
from captioning.runtime.tracking import tracked
from stages import check
from tests.helpers import planted
from tests.helpers.hub_server import Answer, HubServer, Request
from tests.helpers.online import online

ROOT = Path(__file__).parents[2]
TOKEN, KEY = planted.ENVIRONMENT["HF_TOKEN"], planted.ENVIRONMENT["WANDB_API_KEY"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in planted.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def clean(text: str) -> str:
    """Return `text` after a check that it holds no token."""
    assert planted.secret_names(text.encode()) == [], text
    return text


def test_the_small_world_wrote_no_token(world: Any) -> None:
    """The search covers all files of the copy, with DVC's and git's objects; output is searched as commands run."""
    assert (world.folder / "models/adapters/mix-1/adapter_model.safetensors").is_file()
    assert planted.leaks(world.folder) == {}
    assert planted.leaks(world.audit) == {}


def test_the_search_finds_tokens(tmp_path: Path) -> None:
    import base64

    import pyarrow as pa
    import pyarrow.parquet as pq

    for number in range(3):
        text = base64.b64encode(b"x" * number + b"user:" + TOKEN.encode())
        (tmp_path / f"{number}.txt").write_bytes(text)
    pq.write_table(pa.table({"a": [f"about {KEY}"] * 9}), tmp_path / "a.parquet", compression="zstd")
    subprocess.run(["git", "init", "--quiet", tmp_path / "repository"], check=True)
    command = ["git", "hash-object", "-w", "--stdin"]
    subprocess.run(
        command, cwd=tmp_path / "repository", input=planted.IN_FILE.encode(), check=True, capture_output=True
    )
    assert set(planted.leaks(tmp_path)) == {"0.txt", "1.txt", "2.txt", "a.parquet"}
    assert planted.leaks(tmp_path / "repository") == {".git": ["HF_HOME/token"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a {TOKEN} b {KEY}", f"a {MASK} b {MASK}"),
        (f"hf_{'Ab1' * 11}x, hf_oauth_eyJ.{'a' * 20}", f"{MASK}, {MASK}"),
        (f"https://user:{TOKEN}@huggingface.co/a/b", f"https://{MASK}@huggingface.co/a/b"),
        ("http://me:pass@proxy:8080", f"http://{MASK}@proxy:8080"),
        ("{'authorization': 'Bearer abc', 'a': 1}", f"{{'authorization': '{MASK}', 'a': 1}}"),
        (f"api key: {COMMIT}", f"api key: {MASK}"),
        (f"wandb_v1_{'aB3' * 20}", MASK),
        ("https://s3/x?X-Amz-Signature=12ab&part=1", f"https://s3/x?X-Amz-Signature={MASK}&part=1"),
        (f"revision {COMMIT}", f"revision {COMMIT}"),
        ("hf_raise_for_status(response), token=get_token()", "hf_raise_for_status(response), token=get_token()"),
        ("no such token (401); fix HF_TOKEN", "no such token (401); fix HF_TOKEN"),
        ("https://huggingface.co/a@b me@example.org", "https://huggingface.co/a@b me@example.org"),
    ],
)
def test_only_secrets_are_replaced(text: str, expected: str) -> None:
    assert redact(text) == expected


def test_each_encoding_of_a_secret_is_replaced() -> None:
    odd = "p@ss/word+with signs"
    text = " ".join((odd, "p%40ss%2Fword%2Bwith%20signs", "cEBzcy93b3JkK3dpdGggc2lnbnM="))
    assert redact(text, {"STORE_PASSWORD": odd}) == f"{MASK} {MASK} {MASK}="
    assert redact("a short secret", {"SOME_TOKEN": "short"}) == "a short secret"


def test_a_secret_is_replaced_without_outer_spaces_and_when_escaped() -> None:
    assert redact("key is 0123456789", {"WANDB_API_KEY": " 0123456789\n"}) == f"key is {MASK}"
    odd = """a "quoted" 'pass' \\ wörd\tend"""
    for quoted in (json.dumps(odd), json.dumps(odd, ensure_ascii=False), repr(odd)):
        assert redact(quoted[1:-1], {"STORE_PASSWORD": odd}) == MASK
    assert redact("b\udcffyte", {"A_TOKEN": "12345678\udcff"}) == "b\udcffyte", "a shell may pass invalid text"


@pytest.mark.parametrize(
    ("name", "value", "is_secret"),
    [
        ("hf_token", "0123456789", True),
        ("GITHUB_PAT", "0123456789", True),
        ("STORE_KEY", "0123456789abcdef", True),
        ("store_key", "0123456789abcdef", True),
        ("STORE_KEY", "0123456789", False),
        ("SSH_KEY", "/home/me/.ssh/id_ed25519", False),
        ("CUDA_PATH", "0123456789abcdef", False),
        ("MONKEY", "0123456789abcdef", False),
    ],
)
def test_a_variables_name_decides(name: str, value: str, is_secret: bool) -> None:
    assert redact(f"({value})", {name: value}) == (f"({MASK})" if is_secret else f"({value})")


def test_an_unexpected_exception_is_printed_without_secrets() -> None:
    setup = "import os; from captioning.runtime.redaction import install_hooks; install_hooks()"
    code = f"{setup}; raise ValueError(os.environ['HF_TOKEN'])"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.returncode == 1
    assert clean(process.stderr).endswith(f"ValueError: {MASK}\n") and "Traceback" in process.stderr


class Echo(HubServer):
    """Repeat a request's headers in the answer."""

    code = 401

    def answer(self, request: Request) -> Answer:
        body = json.dumps({"error": f"refused: {request.headers}"}).encode()
        return Answer(self.code, body, {"X-Error-Message": str(request.headers), "X-Request-Id": "1"})


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Echo]:
    with Echo() as server, online(server, monkeypatch, str(tmp_path), TOKEN):
        yield server  # type: ignore[misc]


@pytest.mark.parametrize("code", [401, 403, 404, 500])
def test_a_hub_that_repeats_the_token_is_quoted_without_it(
    echo: Echo, code: int, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    echo.code = code
    with pytest.raises(UserError) as caught:
        hub.resolve_revision(hub.Repository("model", "us/model", "main", "do otherwise"), tmp_path)
    assert echo.served and echo.served[-1].token == TOKEN, "the Hub must get the token"
    clean(str(caught.value) + repr(caught.value.__cause__) + caplog.text)


def test_a_token_in_params_is_refused_without_printing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["profiles"]["paper"]["checkpoints"]["base"]["repository"] = f"https://user:{TOKEN}@huggingface.co/a/b"
    params["profiles"]["paper"]["data"]["repository"] = f"https://user:{TOKEN}@huggingface.co/a/b"
    params["profiles"]["paper"]["data"]["path"] = "https://me:password@example.org/RISCM.zip"
    YAML(typ="safe").dump(params, tmp_path / "params.yaml")
    with pytest.raises(UserError) as caught:
        load_params(tmp_path / "params.yaml")
    faults = clean(str(caught.value)).splitlines()
    assert "password@" not in str(caught.value)
    for key in ("checkpoints.base.repository", "data.repository", "data.path"):
        assert any(line.startswith(f"  profiles.paper.{key}: a token or a password") for line in faults)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        check.main()
    assert "a token or a password" in clean(capsys.readouterr().err)
    assert not list((tmp_path / "data").iterdir())


def test_damaged_yaml_is_quoted_without_its_token(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(f"profile: 'https://user:{TOKEN}@x\n", encoding="utf-8")
    with pytest.raises(UserError, match="not readable as YAML") as caught:
        load_params(tmp_path / "params.yaml")
    clean(str(caught.value))


def test_a_tracker_that_quotes_its_key_is_quoted_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioning.runtime.tracking.find_spec", lambda _: object())
    monkeypatch.setattr("captioning.runtime.tracking.TRACKING", tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    error = type("UsageError", (Exception,), {"__module__": "wandb.errors"})(f"no such key {KEY},\napi_key={COMMIT}")
    tracking = Tracking(report_to="wandb", mode="online")
    with pytest.raises(UserError, match=r"refused \(UsageError: no such key") as caught, tracked(tracking, "mix-1"):
        raise error
    assert COMMIT not in clean(str(caught.value))


def test_files_with_a_token_are_not_published(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    weights = tmp_path / "adapter_model.safetensors"
    save_file({}, weights, {"made": "with care"})
    files: dict[str, bytes | Path] = {"README.md": b"# A card", "adapter_model.safetensors": weights}
    check_secrets(Parcel(files, ()), "Adapter mix-1")
    save_file({}, weights, {"made": f"with {TOKEN}"})
    with pytest.raises(UserError, match=r"^adapter_model\.safetensors: holds a token") as caught:
        check_secrets(Parcel(files, ()), "")
    clean(str(caught.value))
    with pytest.raises(UserError, match=r"^README\.md, --message: holds a token"):
        check_secrets(Parcel({"README.md": f"see https://me:{KEY}@host".encode()}, ()), f"with {TOKEN}")


@pytest.mark.parametrize("name", ["captioning.commands.publish", "captioning"])
def test_a_command_line_is_quoted_without_its_token(name: str, tmp_path: Path) -> None:
    arguments = {
        "captioning.commands.publish": ["mix-1", "--repository", f"https://me:{TOKEN}@huggingface.co/me/mine"],
        "captioning": ["a.jpg", "--model", f"https://me:{TOKEN}@huggingface.co/me/mine"],
    }
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    command = [sys.executable, "-m", name, *arguments[name]]
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode != 0 and "Traceback" not in clean(process.stdout + process.stderr)
