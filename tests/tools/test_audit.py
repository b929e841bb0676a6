"""What a service finds fails the check, what is silent does not, and neither is taken for the other."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from typing import Any

import pytest

from captioning.base.errors import UserError
from tools import audit

ROOT = Path(__file__).parents[2]
BUG: dict[str, Any] = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": [], "description": "bad"}
CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}


def answer(*bugs: dict[str, Any], skipped: tuple[str, ...] = ()) -> str:
    found = [{"name": "torch", "version": "2.13.0", "vulns": list(bugs)}, CLEAN]
    unknown = [{"name": name, "skip_reason": "not found"} for name in skipped]
    return json.dumps({"dependencies": [*found, *unknown], "fixes": []})


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a pip-audit on PATH that says so, by service."""
    monkeypatch.setattr(audit, "IGNORED", tmp_path / "ignored.txt")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "ignored.txt").write_text("# none\n", encoding="utf-8")

    def put(**by_service: str) -> None:
        code = f"""#!{sys.executable}
import sys
said = {by_service!r}.get(sys.argv[2])
sys.exit("ConnectionError: no route (Caused by x)") if said is None else print(said)
"""
        (tmp_path / "pip-audit").write_text(code, encoding="utf-8")
        (tmp_path / "pip-audit").chmod(stat.S_IRWXU)

    return put


def test_a_vulnerability_fails(says: Any, capsys: pytest.CaptureFixture[str]) -> None:
    says(pypi=answer(BUG | {"fix_versions": ["2.13.1"]}))
    assert audit.main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "vulnerable: torch 2.13.0: CVE-1, PYSEC-1; mended in 2.13.1",
        "2 packages audited, 1 to mend",
    ]


def test_nothing_found_passes(says: Any, capsys: pytest.CaptureFixture[str]) -> None:
    says(pypi=answer(skipped=("wordcloud",)))
    assert audit.main() == 0
    assert "not audited, as the service does not know them: wordcloud\n2 packages audited, 0" in capsys.readouterr().out


def test_where_no_service_answers_one_line_says_so(says: Any, capsys: pytest.CaptureFixture[str]) -> None:
    says()
    assert audit.main() == 0
    told = "pypi: ConnectionError: no route; osv: ConnectionError: no route"
    assert capsys.readouterr().out == f"not audited: {told}\n"


def test_a_service_that_knows_nothing_is_no_clean_bill(says: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """A mirror of the registry without its vulnerability interface: pip-audit itself reports success."""
    mirror = json.dumps({"dependencies": [{"name": "torch", "skip_reason": "not found"}], "fixes": []})
    says(pypi=mirror)
    assert audit.main() == 0
    assert capsys.readouterr().out.startswith("not audited: pypi: knows none of 1 packages; osv: ")
    says(pypi=mirror, osv=answer(BUG))
    assert audit.main() == 1, "the next service is asked"


def test_without_pip_audit_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert audit.main() == 0
    told = "pip-audit is not installed (pip install -r requirements-audit.txt)"
    assert capsys.readouterr().out == f"not audited: {told}\n"


def test_what_is_ignored_passes_until_a_release_mends_it(says: Any, tmp_path: Path, capsys: Any) -> None:
    ignored = tmp_path / "ignored.txt"
    ignored.write_text("CVE-1 2026-01-31 only where a model is untrusted\nCVE-2 2026-01-31 gone\n", encoding="utf-8")
    says(pypi=answer(BUG))
    assert audit.main() == 0
    out = capsys.readouterr().out
    assert "let pass (since 2026-01-31: only where a model is untrusted): torch 2.13.0" in out
    assert "CVE-2 is found no more; take it out" in out
    says(pypi=answer(BUG | {"fix_versions": ["3"]}))
    assert audit.main() == 1
    ignored.write_text("CVE-1 for some reason\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"ignored\.txt:1: an identifier, a day"):
        audit.main()


def test_the_projects_own_list_can_be_read() -> None:
    audit.ignored(ROOT / audit.IGNORED)


@pytest.fixture
def osv() -> Iterator[str]:
    """The address of a stand-in for OSV that knows one vulnerability, of numpy."""
    bug = {
        "id": "GHSA-1", "summary": "bad", "details": "bad", "aliases": ["CVE-1"], "modified": "2026-01-01T00:00:00Z",
        "affected": [{"package": {"name": "numpy", "ecosystem": "PyPI"}, "ranges": [
            {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9"}]}]}],
    }  # fmt: skip

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["package"]["name"]
            content = json.dumps({"vulns": [bug]} if asked == "numpy" else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(which("pip-audit") is None, reason="make check installs pip-audit")
def test_pip_audit_itself_against_a_stand_in(osv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = tmp_path / "requirements.txt"
    pins.write_text("numpy==2.4.6\ntqdm==4.70.1\n", encoding="utf-8")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", osv)
    found = audit.audit("osv", [str(pins)])
    assert isinstance(found, audit.Audit)
    assert (found.known, found.unknown) == (2, ())
    assert [str(one) for one in found.found] == ["numpy 2.4.6: CVE-1, GHSA-1; mended in 9"]
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:9/v1/query")
    silent = audit.audit("osv", [str(pins)])
    assert isinstance(silent, str) and silent.startswith("osv: ") and os.linesep not in silent


def test_pins_install_beside_the_others() -> None:
    """No package stands in two files with two versions, and pip-audit changes none of the project's."""
    pins: dict[str, set[str]] = {}
    for name in audit.PINS:
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if "==" in line:
                package, version = line.strip().split("==")
                pins.setdefault(re.sub(r"[-_.]+", "-", package).lower(), set()).add(version)
    assert all(len(versions) == 1 for versions in pins.values())
    assert "-c requirements.txt" in (ROOT / "requirements-audit.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("status", [0, 1])
def test_where_it_cannot_be_installed_the_check_goes_on(tmp_path: Path, status: int) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "requirements-audit.txt", ".venv/installed"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
    python.chmod(stat.S_IRWXU)
    done = subprocess.run(["make", ".venv/audit"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".venv/audit").exists() is (status == 0), "another time it is tried again"
