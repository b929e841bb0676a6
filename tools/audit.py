"""`python -m tools.audit`: report known vulnerabilities of the pinned packages, with pip-audit; part of `make check`.

1. A vulnerability fails the check unless `IGNORED_FILE` names it with a date and a reason, and no release fixes it yet.
2. If no service answers, one line says that nothing was audited, and the check passes. A service that knows none of the
   packages counts as silent: a mirror without that interface finds nothing, which pip-audit reports as success.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from captioning.base.errors import UserError
from captioning.runtime.redaction import redact

PINS = ("requirements.txt", *(f"requirements-{name}.txt" for name in ("dev", "tracking", "apart", "serve", "audit")))
IGNORED_FILE = Path("tools/audit-ignored.txt")
IGNORED_LINE = re.compile(r"(\S+)\s+(\d{4}-\d\d-\d\d)\s+(\S.*)")  # identifier, date, reason
SERVICES = ("pypi", "osv")  # in the order in which they are tried
TIMEOUT = 300.0  # seconds for each service
OPTIONS = ("-f", "json", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--desc", "off", "--aliases", "on")


@dataclass(frozen=True)
class Vulnerability:
    package: str
    version: str
    identifiers: tuple[str, ...]
    fixes: tuple[str, ...]  # versions

    def __str__(self) -> str:
        remedy = f"fixed in {', '.join(self.fixes)}" if self.fixes else "no release fixes it"
        return f"{self.package} {self.version}: {', '.join(self.identifiers)}; {remedy}"


@dataclass(frozen=True)
class Audit:
    """A service's answer: how many packages it knows, those it does not know, and the vulnerabilities."""

    packages: int
    unknown: tuple[str, ...]
    vulnerabilities: tuple[Vulnerability, ...]


def audit(service: str, pins: Sequence[str]) -> Audit | str:
    """Return the answer of `service` about the packages in `pins`, or the reason why there is none."""
    program = which("pip-audit")
    if program is None:
        return "pip-audit is not installed (pip install -r requirements-audit.txt)"
    command = [program, "-s", service, *OPTIONS, *(word for name in pins for word in ("-r", name))]
    try:
        process = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=TIMEOUT)
        answer = parse_answer(json.loads(process.stdout))
    except subprocess.TimeoutExpired:
        return f"{service}: no answer in {TIMEOUT:.0f} s"
    except (ValueError, KeyError, TypeError):
        last_line = (process.stderr.strip().splitlines() or ["no answer"])[-1]
        return f"{service}: {redact(last_line.split('(Caused')[0].strip())[:160]}"
    return answer if answer.packages else f"{service}: knows none of {len(answer.unknown)} packages"


def parse_answer(answer: dict[str, Any]) -> Audit:
    """Convert pip-audit's JSON."""
    unknown = [entry["name"] for entry in answer["dependencies"] if "skip_reason" in entry]
    audited = [entry for entry in answer["dependencies"] if "skip_reason" not in entry]
    vulnerabilities = [
        Vulnerability(entry["name"], entry["version"], identifiers(bug), tuple(bug["fix_versions"]))
        for entry in audited
        for bug in entry["vulns"]
    ]
    return Audit(len(audited), tuple(unknown), tuple(vulnerabilities))


def identifiers(bug: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted({bug["id"], *bug.get("aliases", ())}))


def read_ignored(path: Path) -> dict[str, str]:
    """Return reasons by identifier. Raises `UserError` if a line lacks its date or its reason."""
    reasons = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (match := IGNORED_LINE.fullmatch(line.strip())) is None:
            raise UserError(f"{path}:{number}: write an identifier, a date (2026-01-31) and a reason")
        reasons[match[1]] = f"since {match[2]}: {match[3]}"
    return reasons


def report(answer: Audit, reasons: dict[str, str]) -> tuple[list[str], int]:
    """Return lines for the user, and the exit status."""
    lines, failures, seen = [], 0, set[str]()
    for bug in answer.vulnerabilities:
        seen.update(bug.identifiers)
        reason = next((reasons[name] for name in bug.identifiers if name in reasons), None)
        if reason is None or bug.fixes:
            failures += 1
            lines.append(f"vulnerable: {bug}")
        else:
            lines.append(f"accepted ({reason}): {bug}")
    lines += [f"{IGNORED_FILE}: {name} is no longer reported; remove it" for name in sorted(reasons.keys() - seen)]
    if answer.unknown:
        lines.append(f"not audited, since the service does not know them: {', '.join(answer.unknown)}")
    return [*lines, f"{answer.packages} packages audited, {failures} to fix"], int(failures > 0)


def main() -> int:
    reasons, refusals = read_ignored(IGNORED_FILE), []
    for service in SERVICES:
        answer = audit(service, PINS)
        if isinstance(answer, Audit):
            lines, status = report(answer, reasons)
            print("\n".join(lines))
            return status
        refusals.append(answer)
    print(f"not audited: {'; '.join(dict.fromkeys(refusals))}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
