"""A reported vulnerability fails the check; a silent service does not, and is not taken for a good answer."""

import json
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
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
Check = Callable[..., tuple[int, str]]


def answer(*bugs: dict[str, Any], skipped: tuple[str, ...] = ()) -> str:
    audited = [{"name": "torch", "version": "2.13.0", "vulns": list(bugs)}, CLEAN]
    unknown = [{"name": name, "skip_reason": "not found"} for name in skipped]
    return json.dumps({"dependencies": [*audited, *unknown], "fixes": []})


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the check with a pip-audit that gives these answers, by service; return exit status and output."""
    monkeypatch.setattr(audit, "IGNORED_FILE", tmp_path / "ignored.txt")
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "ignored.txt").write_text("# none\n", encoding="utf-8")

    def run(**answers: str) -> tuple[int, str]:
        code = f"""#!{sys.executable}
import sys
answer = {answers!r}.get(sys.argv[2])
sys.exit("ConnectionError: no route (Caused by x)") if answer is None else print(answer)
"""
        (tmp_path / "pip-audit").write_text(code, encoding="utf-8")
        (tmp_path / "pip-audit").chmod(stat.S_IRWXU)
        return audit.main(), capsys.readouterr().out

    return run


def test_a_vulnerability_fails(check: Check) -> None:
    status, text = check(pypi=answer(BUG | {"fix_versions": ["2.13.1"]}))
    assert status == 1
    assert text == "vulnerable: torch 2.13.0: CVE-1, PYSEC-1; fixed in 2.13.1\n2 packages audited, 1 to fix\n"


def test_no_vulnerability_passes_and_unknown_packages_are_named(check: Check) -> None:
    status, text = check(pypi=answer(skipped=("wordcloud",)))
    assert status == 0 and "does not know them: wordcloud\n2 packages audited, 0" in text


def test_without_an_answer_one_line_says_so(check: Check) -> None:
    reason = "pypi: ConnectionError: no route; osv: ConnectionError: no route"
    assert check() == (0, f"not audited: {reason}\n")


def test_a_service_that_knows_no_package_is_silent(check: Check) -> None:
    mirror = json.dumps({"dependencies": [{"name": "torch", "skip_reason": "not found"}], "fixes": []})
    status, text = check(pypi=mirror)
    assert status == 0 and text.startswith("not audited: pypi: knows none of 1 packages; osv: ")
    assert check(pypi=mirror, osv=answer(BUG))[0] == 1, "the next service must be tried"


def test_a_missing_pip_audit_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert audit.main() == 0
    assert capsys.readouterr().out.startswith("not audited: pip-audit is not installed")


def test_an_ignored_vulnerability_passes_until_a_release_fixes_it(check: Check, tmp_path: Path) -> None:
    ignored = tmp_path / "ignored.txt"
    ignored.write_text("CVE-1 2026-01-31 only with an untrusted model\nCVE-2 2026-01-31 gone\n", encoding="utf-8")
    status, text = check(pypi=answer(BUG))
    assert status == 0 and "CVE-2 is no longer reported; remove it" in text
    assert "accepted (since 2026-01-31: only with an untrusted model): torch 2.13.0" in text
    assert check(pypi=answer(BUG | {"fix_versions": ["3"]}))[0] == 1
    ignored.write_text("CVE-1 for some reason\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"ignored\.txt:1: "):
        audit.main()


def test_the_projects_list_of_ignored_vulnerabilities_is_well_formed() -> None:
    audit.read_ignored(ROOT / audit.IGNORED_FILE)


class OSVHandler(BaseHTTPRequestHandler):
    """A stand-in for OSV that knows one vulnerability, of numpy."""

    events = ({"introduced": "0"}, {"fixed": "9"})
    affected = {"package": {"name": "numpy", "ecosystem": "PyPI"}, "ranges": [{"type": "ECOSYSTEM", "events": events}]}  # noqa: RUF012
    bug = {"id": "GHSA-1", "summary": "bad", "details": "bad", "aliases": ["CVE-1"], "affected": [affected]}  # noqa: RUF012

    def do_POST(self) -> None:
        name = json.loads(self.rfile.read(int(self.headers["content-length"])))["package"]["name"]
        bugs = [self.bug | {"modified": "2026-01-01T00:00:00Z"}] if name == "numpy" else []
        content = json.dumps({"vulns": bugs} if bugs else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def osv() -> Iterator[str]:
    """The address of the stand-in."""
    with ThreadingHTTPServer(("127.0.0.1", 0), OSVHandler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


@pytest.mark.skipif(which("pip-audit") is None, reason="make check installs pip-audit")
def test_the_real_pip_audit_reads_the_stand_in(osv: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = tmp_path / "requirements.txt"
    pins.write_text("numpy==2.4.6\ntqdm==4.70.1\n", encoding="utf-8")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", osv)
    answer = audit.audit("osv", [str(pins)])
    assert isinstance(answer, audit.Audit) and (answer.packages, answer.unknown) == (2, ())
    assert [str(bug) for bug in answer.vulnerabilities] == ["numpy 2.4.6: CVE-1, GHSA-1; fixed in 9"]
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:9/v1/query")
    reason = audit.audit("osv", [str(pins)])
    assert isinstance(reason, str) and reason.startswith("osv: ") and "\n" not in reason


def test_no_package_is_pinned_to_two_versions() -> None:
    pins: dict[str, set[str]] = {}
    for name in audit.PINS:
        for package, version in re.findall(r"^\s*(\S+)==(\S+)", (ROOT / name).read_text(encoding="utf-8"), re.M):
            pins.setdefault(re.sub(r"[-_.]+", "-", package).lower(), set()).add(version)
    assert all(len(versions) == 1 for versions in pins.values())
    assert "-c requirements.txt" in (ROOT / "requirements-audit.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("status", [0, 1])
def test_make_check_goes_on_if_pip_audit_cannot_be_installed(tmp_path: Path, status: int) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "requirements-audit.txt", ".venv/installed"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir()
    python.write_text(f"#!/bin/sh\nexit {status}\n", encoding="utf-8")
    python.chmod(stat.S_IRWXU)
    make = subprocess.run(["make", ".venv/audit"], cwd=tmp_path, capture_output=True, text=True)
    assert make.returncode == 0, make.stderr
    assert (tmp_path / ".venv/audit").exists() is (status == 0), "a failed installation must be tried again"
