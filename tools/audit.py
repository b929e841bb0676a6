"""`python -m tools.audit`: known vulnerabilities among the pinned packages, by pip-audit; part of `make check`.

1. A vulnerability fails, unless `IGNORED` names it with a day and a reason, and no release mends it yet.
2. Where no service answers, or a service knows none of the packages (a mirror without that interface finds nothing, and
   pip-audit calls that clean), one line says that nothing was audited, and the check goes on.
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
from captioning.base.redaction import redact

PINS = ("requirements.txt", "requirements-tracking.txt", "requirements-audit.txt")
IGNORED = Path("tools/audit-ignored.txt")
LINE = re.compile(r"(\S+)\s+(\d{4}-\d\d-\d\d)\s+(\S.*)")  # identifier, day, reason
SERVICES = ("pypi", "osv")  # the next is asked where one does not answer
PATIENCE = 300.0  # seconds a service may take


@dataclass(frozen=True)
class Vulnerability:
    package: str
    version: str
    names: tuple[str, ...]  # its identifier, and others of the same
    mended: tuple[str, ...]  # versions

    def __str__(self) -> str:
        remedy = f"mended in {', '.join(self.mended)}" if self.mended else "no release mends it"
        return f"{self.package} {self.version}: {', '.join(self.names)}; {remedy}"


@dataclass(frozen=True)
class Audit:
    """What a service said: how many packages it knows, which it does not, and what it found."""

    known: int
    unknown: tuple[str, ...]
    found: tuple[Vulnerability, ...]


def audit(service: str, pins: Sequence[str]) -> Audit | str:
    """What `service` says of the packages in `pins`; else why it says nothing."""
    program = which("pip-audit")
    if program is None:
        return "pip-audit is not installed (pip install -r requirements-audit.txt)"
    files = [option for name in pins for option in ("-r", name)]
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--desc", "off", "--aliases", "on"]
    command = [program, "-s", service, "-f", "json", *options, *files]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return f"{service}: no answer in {PATIENCE:.0f} s"
    try:
        answer = read(json.loads(done.stdout))
    except (ValueError, KeyError, TypeError):
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        return f"{service}: {redact(last.split('(Caused')[0].strip())[:160]}"
    return answer if answer.known else f"{service}: knows none of {len(answer.unknown)} packages"


def read(answer: dict[str, Any]) -> Audit:
    """pip-audit's JSON."""
    asked: list[dict[str, Any]] = []
    unknown: list[dict[str, Any]] = []
    for one in answer["dependencies"]:
        (unknown if "skip_reason" in one else asked).append(one)
    found = [
        Vulnerability(one["name"], one["version"], names(bug), tuple(bug["fix_versions"]))
        for one in asked for bug in one["vulns"]
    ]  # fmt: skip
    return Audit(len(asked), tuple(one["name"] for one in unknown), tuple(found))


def names(bug: dict[str, Any]) -> tuple[str, ...]:
    return tuple(sorted({bug["id"], *bug.get("aliases", ())}))


def ignored(path: Path) -> dict[str, str]:
    """Reasons by identifier. Raises `UserError` where a line lacks its day or its reason."""
    reasons = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if (parts := LINE.fullmatch(line.strip())) is None:
            raise UserError(f"{path}:{number}: an identifier, a day (2026-01-31) and a reason are wanted")
        reasons[parts[1]] = f"since {parts[2]}: {parts[3]}"
    return reasons


def told(found: Audit, reasons: dict[str, str]) -> tuple[list[str], int]:
    """Lines for the user, and the exit status."""
    lines, failed, met = [], 0, set()
    for one in found.found:
        named = [name for name in one.names if name in reasons]
        met |= set(named)
        passes = bool(named) and not one.mended
        failed += not passes
        lines.append(f"let pass ({reasons[named[0]]}): {one}" if passes else f"vulnerable: {one}")
    lines += [f"{IGNORED}: {name} is found no more; take it out" for name in sorted(reasons.keys() - met)]
    if found.unknown:
        lines.append(f"not audited, as the service does not know them: {', '.join(found.unknown)}")
    lines.append(f"{found.known} packages audited, {failed} to mend")
    return lines, int(failed > 0)


def main() -> int:
    reasons, silent = ignored(IGNORED), []
    for service in SERVICES:
        answer = audit(service, PINS)
        if isinstance(answer, Audit):
            lines, status = told(answer, reasons)
            print("\n".join(lines))
            return status
        silent.append(answer)
    print(f"not audited: {'; '.join(dict.fromkeys(silent))}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
